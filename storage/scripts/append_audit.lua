-- Writes into the audit log.

audit(A.place, A.by, A.act, A.detail)
return 1
