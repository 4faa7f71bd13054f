#!lua
-- Write and drop documents. ARGV: docs (kind, name, version, due), drops (kind, name), whether this is a repeat; then
-- one body per document.
local docs, drops = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local conflict = check_docs(docs, 3, ARGV[3] == '1')
if conflict then
  return conflict
end
save_docs(docs, 3, now())
for n = 1, #drops, 2 do
  call_for(drops[n], drops[n + 1])
  drop_doc(drops[n], drops[n + 1])
end
return 'saved'
