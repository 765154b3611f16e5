-- Writes into the audit log.

note(A.place, A.by, A.act, A.detail)
return 1
