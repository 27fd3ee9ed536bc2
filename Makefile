# Passerelle's two commands are `make demo` and `make test`.

.DEFAULT_GOAL := help
.PHONY: help demo test soak-chaos soak-leaves soak-kill-sfu soak-kicks bench-refusals parts bench build lint clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

demo: ## two ministries call each other on this machine (ARGS=--headless: by themselves)
	@go run ./demo $(ARGS)

test: ## everything that CI runs, on real parts
	@./.ci/test

soak-chaos: ## 300 callers come and go while servers are killed: nine minutes (ARGS=--seed 2)
	@go run ./demo --chaos 300 $(ARGS)

soak-leaves: ## 10,000 clients hand their leaves over to one Synapse: half an hour or more (ARGS=--seed 2)
	@go run ./demo --leaves 10000 $(ARGS)

soak-kill-sfu: ## an SFU is killed 20 times under a live call: six minutes
	@go run ./demo --headless --kill-sfu 20 $(ARGS)

soak-kicks: ## 60 are thrown out of rooms while they call, and try to come back: some minutes
	PASSERELLE_REQUIRE_PARTS=1 PASSERELLE_SOAK=60 go test -count=1 -run TestKickedOutOfTheCall -v -timeout 30m ./demo/town

parts: ## fetch what demo and test need into .cache
	@go run ./demo --parts

bench: ## what tokens, signalling, joins and media cost (ARGS='-only tokens')
	@go run ./bench $(ARGS)

bench-refusals: ## does the time of a refusal tell whether a room exists: some minutes
	PASSERELLE_REQUIRE_PARTS=1 go test -run '^$$' -bench Refusals -benchtime 60x -timeout 1h ./demo/town

build: ## the binary, ./passerelle
	go build -o passerelle .

lint: ## formatting, vet, staticcheck, tidy go.mod
	@./.ci/test lint

clean: ## remove everything that was fetched and built
	rm -rf .cache demo-out passerelle
