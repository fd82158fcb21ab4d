"""Catalogues: a table and a configuration in, posteriors of every row out.

config   the TOML configuration, checked
units    flux units to maggies
tables   a catalogue file to arrays
flags    what can be wrong with a row
chunk    the contract with the engine that fits
writer   result files, chunk by chunk
results  reading them
run      the loop over the catalogue
"""
