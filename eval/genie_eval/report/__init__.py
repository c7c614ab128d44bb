"""The report: report.json, its figures and report.html."""
