"""LOOK AT RUNS: run folders -> answers -> a page in a browser, one HTML file, a terminal.

run folders -> Library.load("runs/0/trajectories/17") -> JSON that says all there is to draw
Library -> serve | write_html | show_trajectory;  run folder -> export_run -> ATIF, parquet
"""
