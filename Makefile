# Vmm: see README.md. Every target may be run on a fresh machine; `setup` installs what is missing.
CONFIG ?= Release
PUBLISH := artifacts/publish/vmmctl
# The daemon and its worker share a folder: vmmd looks for vmm-worker beside itself.
PUBLISH_DAEMON := artifacts/publish/vmmd

.PHONY: all setup build publish publish-tests package guests demo test test-unit perf fuzz soak format clean

all: build

setup:
	@deploy/dev-setup

build: setup guests
	dotnet build Vmm.sln -c $(CONFIG) -nologo -v q

publish: build
	dotnet publish src/Vmm.Cli -c $(CONFIG) -nologo -v q -o $(PUBLISH)
	dotnet publish src/Vmm.Run -c $(CONFIG) -nologo -v q -o $(PUBLISH)
	dotnet publish src/Vmm.Rbd -c $(CONFIG) -nologo -v q -o $(PUBLISH)
	dotnet publish src/Vmm.Rbd -c $(CONFIG) -nologo -v q -o $(PUBLISH_DAEMON)
	dotnet publish src/Vmm.Worker -c $(CONFIG) -nologo -v q -o $(PUBLISH_DAEMON)
	dotnet publish src/Vmm.Daemon -c $(CONFIG) -nologo -v q -o $(PUBLISH_DAEMON)

# And what tests start as a program of its own.
publish-tests: publish
	dotnet publish tests/Vmm.Worker.Probe -c $(CONFIG) -nologo -v q -o artifacts/publish/probe
	tests/previous/build || echo "the tests beside the previous release will be skipped"

# vmm_VERSION_amd64.deb in artifacts/package.
package: publish
	deploy/package

guests:
	@$(MAKE) --no-print-directory -C tests/guests
	@$(MAKE) -s --no-print-directory -C deploy/guest-agent build/vmm-guest-agent build/vmm-guest-agent-asan

demo: publish
	deploy/demo

test: publish-tests
	tests/run

# Only the tier that needs neither KVM nor QEMU: the quick loop while writing code.
test-unit: build
	tests/run --tier unit

perf: publish
	perf/run

# The long forms; a short form of each is part of `make test`.
fuzz: build
	VMM_FUZZ_ITERATIONS=$${VMM_FUZZ_ITERATIONS:-2000000} dotnet test Vmm.sln -c $(CONFIG) --no-build -nologo --filter "Kind=fuzz" --logger "console;verbosity=normal"
	tests/fuzz-devices/run all $${VMM_FUZZ_SECONDS:-120}
	for target in spec disk net frame body qcow2 moves; do tests/fuzz/run $$target $${VMM_FUZZ_SECONDS:-120} || exit 1; done

soak: publish-tests
	tests/soak
	tests/ceph
	tests/testhost/cpu
	tests/testhost/vhost
	tests/testhost/save
	tests/testhost/uefi
	tests/testhost/systemd trixie-cloud
	tests/testhost/service
	tests/testhost/share
	tests/testhost/agent
	tests/testhost/freeze
	tests/testhost/disks
	tests/testhost/migrate
	tests/testhost/backup
	tests/testhost/replica
	tests/testhost/image
	tests/testhost/installer
	tests/testhost/pager

format:
	dotnet format Vmm.sln --verify-no-changes --no-restore

clean:
	rm -rf artifacts native-shim/build tests/guests/build deploy/guest-agent/build
	find src tests perf -type d \( -name bin -o -name obj \) -prune -exec rm -rf {} +
