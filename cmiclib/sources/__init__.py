"""Raw data sets on one side, the prepared benchmark format on the other: one module per source."""
