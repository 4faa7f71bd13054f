#!lua flags=allow-oom
-- Apply one outcome. ARGV: runner, outcome. Answers the ids that do not stand.
local refused = settle(ARGV[1], cmsgpack.unpack(ARGV[2]), now())
trim(64)
ring('done')
return refused
