// Package hostile measures how much the users of a healthy homeserver notice of
// hostile ones and of hostile clients. It holds benchmarks alone:
//
//	go test -run '^$' -bench . -benchtime 3x -timeout 1h ./bench/hostile
//
// Each starts the real binary twice, with its default limits, a healthy
// homeserver and an SFU that costs nothing. Its users ask both for tokens at the
// same moments, at a steady rate, while one of the two is attacked: whatever
// else the machine has to do strikes both. The columns are the 99th percentiles
// in milliseconds of the one that is left in peace and of the one that is
// attacked, their ratio, the same ratio without an attack (the noise), the
// attacked one's processor time for each request of the attack, how many tokens
// the attack got, what it was mostly told, and by how much memory grew.
package hostile
