#!lua flags=allow-oom
-- Unregister runners and hand back what they hold. ARGV: ending, outcomes, runners…; how many jobs came back.
local t, outcomes, back = now(), cmsgpack.unpack(ARGV[2]), 0
for n = 3, #ARGV do
  settle(ARGV[n], outcomes, t)
  back = back + depart_runner(ARGV[n], ARGV[1], t)
end
trim(64)
ring('work')
ring('done')
return back
