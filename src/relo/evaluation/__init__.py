"""From a tracker to its scores.

- `one_pass` tracks sequences in batches, `run` a whole benchmark on every device, into a `result_folder`;
- `results` and `annotations` read result files and truths, `scoring` scores them by one of the `rules`;
- `report` shows the scores, `submissions` packs results for a server, `adapters` serve other people's toolkits.
"""
