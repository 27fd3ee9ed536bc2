# Passerelle's two commands are `make demo` and `make test`.

.DEFAULT_GOAL := help
.PHONY: help demo test soak-chaos soak-kill-sfu soak-refusals parts bench build lint clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

demo: ## two ministries call each other on this machine (ARGS=--headless: by themselves)
	@go run ./demo $(ARGS)

test: ## everything that CI runs, on real parts
	@./.ci/test

soak-chaos: ## 300 callers come and go while servers are killed: a quarter of an hour (ARGS=--seed 2)
	@go run ./demo --chaos 300 $(ARGS)

soak-kill-sfu: ## an SFU is killed 20 times under a live call: six minutes
	@go run ./demo --headless --kill-sfu 20 $(ARGS)

soak-refusals: ## how long each refusal takes beside the others: a quarter of an hour
	@go test -run '^$$' -bench Refusals -benchtime 60x -timeout 2h ./demo/town $(ARGS)

parts: ## fetch what demo and test need into .cache
	@go run ./demo --parts

bench: ## what tokens, signalling, joins and media cost (ARGS='-only tokens')
	@go run ./bench $(ARGS)

build: ## the binary, ./passerelle
	go build -o passerelle .

lint: ## formatting, vet, staticcheck, tidy go.mod
	@./.ci/test lint

clean: ## remove everything that was fetched and built
	rm -rf .cache demo-out passerelle
