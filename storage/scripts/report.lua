-- Stores a process's report about itself.

call('HSET', K('reports'), A.name, A.report)
touch('reports')
