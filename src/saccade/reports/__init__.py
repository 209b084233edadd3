"""The reports: statistics, fairness, tables and pictures, computed from records."""
