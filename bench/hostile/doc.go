// Package hostile measures how much the users of a healthy homeserver notice of
// hostile ones and of hostile clients. It holds benchmarks alone:
//
//	go test -run '^$' -bench . -benchtime 3x -timeout 1h ./bench/hostile
//
// Each starts the real binary with its default limits, a healthy homeserver and
// an SFU that costs nothing, and asks for tokens at a steady rate, in turn
// without and with an attack. The columns are the 99th percentiles in
// milliseconds, the median of their ratios, how many tokens the attack got, and
// what it was mostly told. The attackers share the machine's processors.
package hostile
