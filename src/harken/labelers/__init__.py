"""What people said, as arrays, and models of the people who said it.

- `votes`, `ratings`, `rankings`: the data types `Votes`, `Ratings`, `Rankings`, made by `votes_of`, `ratings_of`, `rankings_of`
- `agreement/`: how far people agree, and with themselves
- `models/`: how each person judges: `fit_reliability`, `fit_traits`, `fit_dawid_skene`, `fit_glad`
- `groups/`: people who want different things: `fit_groups`, `fit_mixture`, `fit_disagreement`, `fit_mean_variance`,
  `fit_categorical`
- `campaigns/`: brigades, and how far one account, address or campaign can move the reward: `fit_campaigns`
- `asking/`: what to ask next: `fit_pace`, `next_items`, `next_sets`

A model is fitted by `fit_NAME(data, *, …)`, which returns a frozen `NAME`. `models/`, `groups/` and `agreement/` do not know
each other; `asking/` builds on `models/`, `campaigns/` on both; nothing imports NumPy before one of them is imported.

One word for a quantity, in code, comments and docs:

| symbol | code | word | what it is |
|---|---|---|---|
| s, μ + δ_g | `scores` | score | log-odds that the average labeler prefers an item to one of score 0 |
| β | `beta` | rationality | what a labeler multiplies differences of scores by: 1 the average, 0 a coin, below 0 upside down |
| ν | `tie`; `log_nu` is ln ν | tie parameter | Davidson's: how likely everybody is to call a tie |
| ln ν_k − ln ν | `indifference` | indifference | how much more readily than others a labeler ties |
| | `position` | pull towards the first place | log-odds that the option shown first gains |
| | `length` | pull towards length | log-odds per doubling of length |
| σ | `sigma` | spread of scores | prior standard deviation of scores, or of weights |
| τ | `tau` | spread of group offsets | prior standard deviation of a group's offset δ_g; 0 means one group |
| ω | `omega` | spread of rationality | standard deviation of β among labelers |
| ψ | `psi` | spread of indifference | standard deviation of indifference among labelers |
| η | `eta` | log-odds | of an answer; in Crowd-BT η_k is the chance that k is honest |
| | `phi` | features | [I, F] a row an item: scores are φ w |
| | `cast` | votes cast | [A] by each labeler |
"Reliability" is all of this about a labeler together (`fit_reliability`), and the name of its fit.
"""
