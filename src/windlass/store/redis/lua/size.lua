#!lua flags=no-writes
-- How many entries an index has. ARGV: its name.
return call('ZCARD', P .. ARGV[1])
