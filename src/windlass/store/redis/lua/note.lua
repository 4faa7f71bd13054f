#!lua flags=allow-oom
-- Write progress under its fence. ARGV: runner, patches (id, fence, seq, progress); the ids that were refused.
local patches, refused = cmsgpack.unpack(ARGV[2]), {}
for n = 1, #patches, 4 do
  local raw = call('HGET', NEWS, patches[n])
  local job = raw and load(patches[n], raw)
  if job and job.state == 'r' and job.fence == patches[n + 1] and job.seq == patches[n + 2] and
      job.runner == ARGV[1] then
    job.progress = patches[n + 3]
    save(job)
    flush()
  else
    refused[#refused + 1] = patches[n]
  end
end
return refused
