#!lua flags=no-writes
-- Who holds unique keys. ARGV: keys; a job's id for each, false where nobody does.
local t, found = now(), {}
for n, key in ipairs(cmsgpack.unpack(ARGV[1])) do
  found[n] = holder_of(key, t) or false
end
return found
