#!/usr/bin/env bash
# The three training commands on real human feedback with SmolLM2, small enough for two CPU cores (about 25 minutes).
# usage: recipes/real_feedback.sh DATA OUT
#   DATA has dolly_subset/, hh_rlhf/ and fine_grained_rlhf/, as published by their authors.
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"
rows() { "$3" "$1" | shuf -n "$2" --random-source=<(yes); }   # a fixed random subset
fast=(--dtype auto --max-length 384)

rows "$(ls "$data"/dolly_subset/*.jsonl | head -n 1)" 320 cat >"$out/demos.jsonl"
rows "$data/hh_rlhf/helpful_test_recovered.jsonl.gz" 400 zcat >"$out/hh.jsonl"
db="$out/feedback.db"
harken import "$out/hh.jsonl" --db "$out/hh.db"
harken snapshot comparisons --db "$out/hh.db" --out "$out/hh_comparisons.jsonl"
harken import "$data/fine_grained_rlhf/dev_feedback.json" --db "$db"
harken snapshot comparisons --db "$db" --out "$out/all_rankings.jsonl"
rows "$out/all_rankings.jsonl" 200 cat >"$out/rankings.jsonl"

harken train sft --model smollm2 --data "$out/demos.jsonl" --out "$out/sft" --epochs 1 --batch-size 16 "${fast[@]}"
harken train reward_model --model "$out/sft" --data "$out/hh_comparisons.jsonl" --out "$out/rm_hh" \
  --learning-rate 5e-4 --warmup 0.1 --holdout 0.25 --max-length 384 --overlong truncate --dtype auto
harken train reward_model --model "$out/sft" --data "$out/rankings.jsonl" --out "$out/rm_rankings" \
  --learning-rate 5e-4 --warmup 0.1 --holdout 0.25 --batch-size 8 --max-length 512 --overlong truncate --dtype auto
harken train rloo --model "$out/sft" --reward "$out/rm_hh" --data "$out/demos.jsonl" --out "$out/rloo" \
  --steps 8 --max-tokens 48 "${fast[@]}"
harken report "$out"/sft "$out"/rm_hh "$out"/rm_rankings "$out"/rloo --out "$out/report.html"
