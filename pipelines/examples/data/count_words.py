"""Counts the words and sentences of reports: what a program needs to be a step of a pipeline.

It reads one table and writes two, all of them CSV files whose paths come as arguments. Nothing but Python's
standard library is needed; with `format: parquet`, pyarrow or pandas would read and write the same tables.
"""

import argparse
import csv
import re
import statistics

parser = argparse.ArgumentParser()
parser.add_argument("--reports", required=True)
parser.add_argument("--counts", required=True)
parser.add_argument("--summary", required=True)
arguments = parser.parse_args()

counts = []
with open(arguments.reports, newline="", encoding="utf-8") as file:
    for report in csv.DictReader(file):
        text = report["findings"] + " " + report["impression"]
        words = len(re.findall(r"\w+", text))
        sentences = len(re.findall(r"[^.!?]*\w[^.!?]*", text))
        counts.append({"id": report["id"], "words": words, "sentences": sentences})

with open(arguments.counts, "w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, ["id", "words", "sentences"])
    writer.writeheader()
    writer.writerows(counts)

with open(arguments.summary, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["measure", "value"])
    writer.writerow(["median words", statistics.median(count["words"] for count in counts)])
    writer.writerow(["reports", len(counts)])
