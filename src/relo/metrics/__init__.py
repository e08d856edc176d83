"""The success curve and the other scores: pure formulas in `functional`, torchmetrics on top."""
