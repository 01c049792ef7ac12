# Cairn. `make demo` shows it, `make test` checks it; the rest is for those who work on it.

GO      ?= go
GOTEST  ?= $(GO) test
TOOL    := $(GO) tool -modfile=tools/go.mod
FUZZ    ?= 20s
KILLS   ?= all
HOURS   ?= 1000
UNIT     = $$($(GO) list ./... | grep -v /systemtest)

.PHONY: all build demo test test-root race lint sweep system chaos failpoints virtual bugs lab lab-test lab-sweep lab-shell record bench fuzz generate clean FORCE

all: build

build: ## bin/cairn and bin/cairn-demo
	$(GO) build -trimpath -o bin/ ./cmd/...

demo: build ## three servers, real files, kill -9 of a leader and of a share's node: every byte is checked
	bin/cairn-demo

test: ## everything that needs neither root nor servers of its own; of crash points a sample
	$(GOTEST) -timeout 20m $(UNIT)

test-root: ## what changes packet filters and addresses, in network namespaces of its own: as root, with nft
	CAIRN_TEST_ROOT=1 $(GOTEST) -count=1 -timeout 10m -run '^TestRoot' ./drivers/fence

race: ## the same under the race detector
	$(GOTEST) -race -timeout 30m $(UNIT)

lint: ## formatting, vet, staticcheck and the API's style
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "gofmt: the files above are not formatted"; exit 1; }
	$(GO) vet -tags lab ./...
	$(TOOL) staticcheck -tags lab ./...
	$(TOOL) buf lint

sweep: ## every crash point of every driver and of the actors, and real kills
	CAIRN_SWEEP_EVERY=1 $(GOTEST) -v -count=1 -timeout 30m -run 'Crash|Kill' ./drivers/... ./actors/...

system: build ## clusters of real server processes
	$(GOTEST) -count=1 -timeout 30m ./systemtest/...

chaos: build ## real servers under faults, three with NFS and five without, by two seeds; SEED is another one, REPORT keeps the pages
	@set -e; report="$${REPORT:-$$(mktemp -d)}"; echo "reports in $$report"; \
	for run in $${SEED:-"11 3" "12 5 webdav"}; do set -- $$run; \
	  bin/cairn chaos run --seed "$$1" --nodes "$${2:-3}" --protocols "$${3:-webdav,nfs}" --duration 30s --settle 90s --report "$$report/$$1"; \
	done

failpoints: bin/cairn-failpoints ## kill -9 at every failpoint, on one server and on three, the better part of an hour; KILLS=15 is a sample
	CAIRN_FAILPOINT_KILLS=$(KILLS) $(GOTEST) -v -count=1 -timeout 120m -run '^TestFailpoints$$' ./systemtest

bin/cairn-failpoints: FORCE
	@mkdir -p bin
	$(GO) run ./chaos/failpoint/overlay bin/.failpoints > bin/failpoints.txt
	$(GO) build -trimpath -overlay bin/.failpoints/overlay.json -o $@ ./cmd/cairn

virtual: ## whole clusters in virtual time: HOURS of them, from SEED on, which is drawn if it is not set (chaos/virtual)
	CAIRN_VIRTUAL_HOURS=$(HOURS) CAIRN_VIRTUAL_SEED=$(or $(SEED),$(shell date +%s)) $(GOTEST) -v -count=1 -timeout 30m -run '^TestClusters$$' ./chaos/virtual

bugs: ## every planted bug applies and compiles, and some are found: other ones every day (chaos/bugs)
	CAIRN_BUGS=today $(GOTEST) -v -count=1 -timeout 30m ./chaos/bugs

repro-%: ## plants the bug chaos/bugs/%.patch in a copy of the sources, and expects it to be found within 10 minutes
	CAIRN_BUGS=$* $(GO) test -v -count=1 -timeout 30m -run '^TestRepro$$' ./chaos/bugs

lab: ## the image of a virtual machine with a real storage kernel, built once (deploy/lab)
	deploy/lab/lab build

lab-test: ## the tests that need that kernel, in it; PKG and RUN choose
	deploy/lab/lab test $(PKG)

lab-sweep: ## every crash point on a real pool, of which lab-test takes a sample; 25 minutes of a processor
	deploy/lab/lab sweep $(PKG)

lab-shell: ## a prompt in it
	deploy/lab/lab shell

record: ## the transcripts in testdata, anew, from the real tools
	deploy/lab/lab record $(PKG)

bench: ## ratios to limits probed in the same run
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 20m ./bench/...

fuzz: ## each fuzz target for $(FUZZ)
	@git grep -o '^func Fuzz[A-Za-z]*' -- '*_test.go' | sed 's|/[^/]*:func | |' | while read -r dir name; do \
		echo "$$dir $$name"; $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZ) ./$$dir || exit 1; done

generate: ## Go code from the proto files
	$(GO) build -C tools -o ../bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	$(TOOL) buf format -w rpc/pb
	PATH="$(CURDIR)/bin:$$PATH" $(TOOL) buf generate

clean:
	rm -rf bin
