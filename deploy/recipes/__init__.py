"""Two full recipes on real data: diagnosis codes and licence texts, from rows to a judged adapter."""
