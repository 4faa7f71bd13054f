#!lua flags=allow-oom
-- Unregister a worker that stops. ARGV: worker.
depart_worker(ARGV[1], 'interrupted', now())
ring('work')
return 1
