using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Spec.Tests;

public sealed class SpecTests
{
    private const string Whole = """
        name: web1
        cpus: 3
        memory: 1GiB
        boot:
          kernel: vmlinuz
          initrd: initrd.img
          cmdline: "console=ttyS0"
        numa:
          vnodes:
            - {cpus: 0-1, memory: 768MiB, hostNodes: 0, policy: strict, pageSize: 2MiB}
            - {cpus: 2, memory: 256MiB, hostNodes: "0,1", policy: interleave}
          distances: [[10, 21], [21, 10]]
        disks:
          - path: /data/root.raw
            readOnly: true
            serial: root
            queues: 2
            queueSize: 128
            cache: buffered
            transport: mmio
        rng: false
        virtioTransport: pci
        serial: true
        debugExit: false
        """;

    private static IReadOnlyList<SpecProblem> Problems(string text) =>
        Assert.Throws<SpecException>(() => SpecReader.Read(text, "t.yaml")).Problems;

    [Fact]
    public void A_whole_spec_reads_into_the_records()
    {
        VmSpec spec = SpecReader.Read(Whole, "t.yaml", "/specs");
        Assert.Equal(("web1", 3, 1UL << 30), (spec.Name, spec.Cpus, spec.Memory));
        Assert.Equal(("/specs/vmlinuz", "/specs/initrd.img", "console=ttyS0"), (spec.Boot.Kernel, spec.Boot.Initrd, spec.Boot.Cmdline));
        Assert.Equal([0, 1], spec.Numa!.Vnodes[0].Cpus);
        Assert.Equal((VnodePolicy.Interleave, 4096UL), (spec.Numa.Vnodes[1].Policy, spec.Numa.Vnodes[1].PageSize));
        Assert.Equal([0, 1], spec.Numa.Vnodes[1].HostNodes);
        Assert.Equal([10, 21], spec.Numa.Distances![0]);
        Assert.Equal(
            new DiskSpec
            {
                Path = "/data/root.raw",
                ReadOnly = true,
                Serial = "root",
                Queues = 2,
                QueueSize = 128,
                Cache = DiskCache.Buffered,
                Transport = VirtioTransport.Mmio
            },
            spec.Disks[0]);
        Assert.False(spec.Rng || spec.DebugExit);
    }

    [Fact]
    public void Paravirtual_devices_read_into_the_records()
    {
        const string Text = """
            boot: {kernel: k}
            balloon: {target: 64MiB, deflateOnOom: false, freePageReporting: false, statsInterval: 5}
            vsock: {cid: 9, path: v.sock}
            guestAgent: true
            console: virtio
            pvpanic: false
            generationId: 6b29fc40-ca47-1067-b31d-00dd010662da
            """;
        VmSpec spec = SpecReader.Read(Text, "t.yaml", "/specs");
        Assert.Equal(
            new BalloonSpec
            {
                Target = new ByteSize((ulong)(64 << 20)),
                DeflateOnOom = false,
                FreePageReporting = false,
                StatsInterval = 5
            },
            spec.Balloon);
        Assert.Equal(new VsockSpec { Cid = 9, Path = "/specs/v.sock" }, spec.Vsock);
        Assert.Equal((true, false), (spec.GuestAgent, SpecReader.Read("boot: {kernel: k}", "t.yaml").GuestAgent));
        Assert.Equal((ConsoleKind.Virtio, false, "6b29fc40-ca47-1067-b31d-00dd010662da"), (spec.Console, spec.PvPanic, spec.GenerationId));
        Assert.Contains("console=hvc0", spec.Boot.Cmdline, StringComparison.Ordinal);
        Assert.Equal(new BalloonSpec(), SpecReader.Read("boot: {kernel: k}\nballoon: true", "t.yaml").Balloon);
        Assert.Null(SpecReader.Read("boot: {kernel: k}\nballoon: false", "t.yaml").Balloon);
        foreach ((string right, string wrong, string path) in ((string, string, string)[])
            [("64MiB", "64GiB", "balloon.target"), ("statsInterval: 5", "statsInterval: -1", "balloon.statsInterval"),
                ("cid: 9", "cid: 2", "vsock.cid"), ("v.sock", "''", "vsock.path"), ("console: virtio", "console: vga", "console"),
                ("guestAgent: true", "guestAgent: qemu", "guestAgent"),
                ("6b29fc40-", "6b29fc40", "generationId"),
                ("{target: 64MiB, deflateOnOom: false, freePageReporting: false, statsInterval: 5}", "'true'", "balloon")])
        {
            SpecProblem problem = Assert.Single(Problems(Text.Replace(right, wrong, StringComparison.Ordinal)));
            Assert.Equal(path, problem.Path);
        }
    }

    [Fact]
    public void What_SMBIOS_tells_is_read_and_wrong_values_are_told()
    {
        const string Text = """
            boot: {kernel: k}
            smbios:
              manufacturer: ACME
              product: Rocket
              version: "7"
              serial: ds=nocloud;s=http://198.51.100.1:8000/
              uuid: 6b29fc40-ca47-1067-b31d-00dd010662da
              sku: 12-34
              family: Heavy
              oemStrings: ["io.systemd.credential:a=b", other]
            """;
        VmSpec spec = SpecReader.Read(Text, "t.yaml");
        SmbiosSpec told = spec.Smbios!;
        Assert.Equal(("ACME", "Rocket", "7", "ds=nocloud;s=http://198.51.100.1:8000/", "6b29fc40-ca47-1067-b31d-00dd010662da"),
            (told.Manufacturer, told.Product, told.Version, told.Serial, told.Uuid));
        Assert.Equal(("12-34", "Heavy"), (told.Sku, told.Family));
        Assert.Equal(["io.systemd.credential:a=b", "other"], told.OemStrings);
        Assert.Equal(told.Uuid, spec.WithUuid("00000000-0000-0000-0000-000000000001").Smbios!.Uuid); // what is said stays
        Assert.Equal("u", SpecReader.Read("boot: {kernel: k}", "t.yaml").WithUuid("u").Smbios!.Uuid);
        VmSpec? back = VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem);
        Assert.Equal("", problem);
        Assert.Equal(told.OemStrings, back!.Smbios!.OemStrings);
        Assert.DoesNotContain("smbios", VmSpecJson.Write(new VmSpec()).GetRawText(), StringComparison.Ordinal);

        foreach ((string right, string wrong, string path) in (ReadOnlySpan<(string, string, string)>)
            [("6b29fc40-", "6b29fc40", "smbios.uuid"), ("manufacturer: ACME", "manufacturer: \"a\\nb\"", "smbios.manufacturer"),
                ("product: Rocket", "product: ''", "smbios.product"), ("family: Heavy", "family: Schön", "smbios.family"),
                ("12-34", new string('x', SmbiosSpec.LongestText + 1), "smbios.sku"), ("other]", "\"a\\0b\"]", "smbios.oemStrings[1]"),
                ("other]", string.Concat(Enumerable.Repeat("x, ", 40)) + "x]", "smbios.oemStrings"), ("sku:", "vendor:", "smbios.vendor")])
        {
            SpecProblem found = Assert.Single(Problems(Text.Replace(right, wrong, StringComparison.Ordinal)));
            Assert.Equal(path, found.Path);
        }
    }

    [Fact]
    public void Left_out_fields_take_their_defaults_and_numa_gives_cpus_and_memory()
    {
        VmSpec small = SpecReader.Read("boot: {kernel: k}", "t.yaml");
        Assert.Equal((1, VmSpec.DefaultMemory, BootSpec.DefaultCmdline), (small.Cpus, small.Memory, small.Boot.Cmdline));
        VmSpec numa = SpecReader.Read(
            "boot: {kernel: k}\nnuma: {vnodes: [{cpus: 0, memory: 64MiB}, {cpus: 1-3, memory: 32MiB}]}", "t.yaml");
        Assert.Equal((4, 96UL << 20), (numa.Cpus, numa.Memory));
    }

    [Theory]
    [InlineData("name: web1", "name: 'a b'", 1, "name")]
    [InlineData("cpus: 3", "cpus: many", 2, "cpus")]
    [InlineData("cpus: 3", "cpus: 0", 2, "cpus")]
    [InlineData("memory: 1GiB", "memory: 1 gig", 3, "memory")]
    [InlineData("memory: 1GiB", "memory: 99999999999TiB", 3, "memory")]
    [InlineData("  kernel: vmlinuz", "  kernel:", 5, "boot.kernel")]
    [InlineData("  initrd: initrd.img", "  initrd: []", 6, "boot.initrd")]
    [InlineData("\"console=ttyS0\"", "\"a\\0b\"", 7, "boot.cmdline")]
    [InlineData("cpus: 0-1,", "cpus: 1-0,", 10, "numa.vnodes[0].cpus")]
    [InlineData("cpus: 2,", "cpus: \"1,2\",", 11, "numa.vnodes[1].cpus")]
    [InlineData("memory: 768MiB", "memory: 767MiB", 10, "numa.vnodes[0].memory")]
    [InlineData("memory: 256MiB", "memory: 258MiB", 10, "numa.vnodes[*].memory")]
    [InlineData("memory: 768MiB", "memory: 768MiB, minMemory: 770MiB", 10, "numa.vnodes[0].minMemory")]
    [InlineData("memory: 768MiB", "memory: 768MiB, minMemory: 767MiB", 10, "numa.vnodes[0].minMemory")]
    [InlineData("memory: 768MiB", "memory: 768MiB, maxMemory: 766MiB", 10, "numa.vnodes[0].maxMemory")]
    [InlineData("memory: 768MiB", "memory: 768MiB, maxMemory: 769MiB", 10, "numa.vnodes[0].maxMemory")]
    [InlineData("memory: 768MiB", "memory: 768MiB, maxMemory: 17TiB", 10, "numa.vnodes[0].maxMemory")]
    [InlineData("memory: 1GiB", "memory: 1GiB\nmaxMemory: 2GiB", 4, "maxMemory")]
    [InlineData("hostNodes: 0,", "hostNodes: a,", 10, "numa.vnodes[0].hostNodes")]
    [InlineData("  distances: ", "  fit: worst\n  distances: ", 12, "numa.fit")]
    [InlineData("policy: strict", "policy: strikt", 10, "numa.vnodes[0].policy")]
    [InlineData("policy: interleave", "policy: preferred", 11, "numa.vnodes[1].hostNodes")]
    [InlineData("pageSize: 2MiB", "pageSize: 3MiB", 10, "numa.vnodes[0].pageSize")]
    [InlineData("[10, 21],", "[10, 9],", 12, "numa.distances[0][1]")]
    [InlineData("[10, 21],", "[11, 21],", 12, "numa.distances[0][0]")]
    [InlineData("path: /data/root.raw", "path: ''", 14, "disks[0].path")]
    [InlineData("readOnly: true", "readOnly: yes", 15, "disks[0].readOnly")]
    [InlineData("serial: root", "serial: 123456789012345678901", 16, "disks[0].serial")]
    [InlineData("queues: 2", "queues: 65", 17, "disks[0].queues")]
    [InlineData("queueSize: 128", "queueSize: 100", 18, "disks[0].queueSize")]
    [InlineData("queues: 2", "vnode: 2", 17, "disks[0].vnode")]
    [InlineData("queues: 2", "vnode: -1", 17, "disks[0].vnode")]
    [InlineData("cache: buffered", "cache: none", 19, "disks[0].cache")]
    [InlineData("transport: mmio", "transport: usb", 20, "disks[0].transport")]
    [InlineData("rng: false", "rng: 1", 21, "rng")]
    [InlineData("virtioTransport: pci", "virtioTransport: PCI", 22, "virtioTransport")]
    [InlineData("serial: true", "serial: 'true'", 23, "serial")]
    [InlineData("debugExit: false", "debugExit: {}", 24, "debugExit")]
    public void Every_field_wrong_once_is_one_problem_with_line_and_path(string right, string wrong, long line, string path)
    {
        Assert.Contains(right, Whole, StringComparison.Ordinal);
        SpecProblem problem = Assert.Single(Problems(Whole.Replace(right, wrong, StringComparison.Ordinal)));
        Assert.Equal((path, line), (problem.Path, problem.Line));
        Assert.StartsWith($"t.yaml:{line}:", problem.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("boot: {firmware: uefi}", "")]
    [InlineData("disks: [{path: a.qcow2}]", "")]
    [InlineData("boot: {variables: v.fd}\ndisks: [{path: a.qcow2}]", "")]
    [InlineData("boot: {firmware: uefi, kernel: k}", "boot.firmware")]
    [InlineData("boot: {kernel: k, variables: v.fd}", "boot.variables")]
    [InlineData("boot: {firmware: uefi, initrd: i}", "boot.kernel")]
    [InlineData("boot: {firmware: uefi, secureBoot: true}", "boot.secureBoot")]
    [InlineData("boot: {kernel: k, secureBoot: true}", "boot.secureBoot")]
    [InlineData("boot: {firmware: bios}\ndisks: [{path: a}]", "boot.firmware")]
    [InlineData("memory: 64MiB\nboot: {firmware: uefi}", "memory")]
    [InlineData("hotplug: pcie\nboot: {firmware: uefi}", "hotplug")]
    [InlineData("cpus: 1", "boot.kernel")]
    public void Firmware_starts_what_names_no_kernel(string text, string problem)
    {
        if (problem.Length > 0)
        {
            Assert.Equal(problem, Assert.Single(Problems(text + "\n")).Path);
            return;
        }

        VmSpec spec = SpecReader.Read(text, "t.yaml");
        Assert.True(spec.Boot.IsFirmware);
        Assert.Equal(spec.Boot, VmSpecJson.TryRead(VmSpecJson.Write(spec), out _)!.Boot);
    }

    [Fact]
    public void All_problems_are_listed_at_once_in_document_order()
    {
        IReadOnlyList<SpecProblem> problems =
            Problems("cpus: x\nboot: {kernel: k, krnl: 2}\nmemory: 1\nmemory: 2GiB\ndiscs: []\ndisks: [{queues: 0}]\nzzzzzzzz: 1\n");
        Assert.Equal(
            [(1, "cpus"), (2, "boot.krnl"), (4, "memory"), (5, "discs"), (6, "disks[0].path"), (6, "disks[0].queues"), (7, "zzzzzzzz")],
            problems.Select(p => ((int)p.Line, p.Path)).OrderBy(p => p.Item1).ThenBy(p => p.Path, StringComparer.Ordinal));
        Assert.Contains("did you mean kernel?", problems[1].Message, StringComparison.Ordinal);
        Assert.Contains("did you mean disks?", problems.Single(p => p.Path == "discs").Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("a: [")]
    [InlineData("just text")]
    [InlineData("boot: &a {kernel: k}\nnuma: *a")]
    [InlineData("boot: {kernel: k}\n---\nboot: {kernel: k}")]
    [InlineData("- a")]
    [InlineData("cpus: 1")]
    [InlineData("boot: {kernel: k}\nnuma: {vnodes: []}")]
    [InlineData("boot: {kernel: k}\ndisks: [{path: a}, {path: a}]")]
    public void Documents_that_are_no_spec_are_refused(string text) => Assert.NotEmpty(Problems(text));

    [Fact]
    public void Mutated_specs_give_a_spec_or_a_spec_error()
    {
        Random random = new(11);
        const string Pool = ":-{}[],\n \t'\"&*!|>%@`#~0aé\u0085";
        int refused = 0;
        for (int round = 0; round < 3000; round++)
        {
            char[] text = Whole.ToCharArray();
            for (int i = 0; i <= random.Next(4); i++)
            {
                text[random.Next(text.Length)] = Pool[random.Next(Pool.Length)];
            }

            try
            {
                SpecReader.Read(new string(text), "t.yaml");
            }
            catch (SpecException)
            {
                refused++;
            }
        }

        Assert.InRange(refused, 1, 2999);
    }

    [Fact]
    public void Numa_split_gives_everything_away_once()
    {
        Check.QuickThrowOnFailure(Prop.ForAll(
            Gen.Choose(1, 64)
                .SelectMany(n => Gen.Choose(1, 254).SelectMany(c => Gen.Choose(64 * 512, 1 << 20).Select(p => (n, c, p))))
                .ToArbitrary(),
            input =>
            {
                VmSpec spec = NumaSplit.Apply(
                    new VmSpec { Cpus = input.c, Memory = new ByteSize((ulong)input.p * 4096), Boot = new BootSpec { Kernel = "k" } },
                    input.n);
                IReadOnlyList<VnodeSpec> vnodes = spec.Numa!.Vnodes;
                // Sockets whose sizes are no power of two waste APIC ids: a split that runs out of them is refused, and for nothing else.
                int ids = (input.n - 1) * (int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)vnodes[0].Cpus.Count);
                Assert.All(SpecValidation.Validate(spec), p => Assert.True(
                    ids + vnodes[0].Cpus.Count > SpecValidation.MaxCpus && p.Message.Contains("APIC ids", StringComparison.Ordinal),
                    p.ToString()));
                Assert.All(vnodes.SkipLast(1), v => Assert.Equal(0UL, v.Memory % NumaSplit.Unit));
                Assert.True(vnodes[0].Cpus.Count - vnodes[^1].Cpus.Count is 0 or 1);
            }));
        Assert.Throws<SpecException>(() => NumaSplit.Apply(new VmSpec { Memory = ByteSize.MiB(2) }, 2));
        Assert.Throws<SpecException>(() => NumaSplit.Apply(new VmSpec(), 65));
    }

    [Theory]
    [InlineData("512MiB", 512UL << 20)]
    [InlineData("4096", 4096UL)]
    [InlineData("16383PiB", null)]
    [InlineData("18446744073709551615TiB", null)]
    [InlineData("-1", null)]
    [InlineData("1.5GiB", 3UL << 29)]
    [InlineData("0.25 KiB", 256UL)]
    [InlineData("1.0009765625MiB", (1UL << 20) + 1024)]
    [InlineData("16777215.5TiB", (16777215UL << 40) + (1UL << 39))]
    [InlineData("1.50000000000000000GiB", 3UL << 29)]
    [InlineData("1.3GiB", null)]
    [InlineData("1.0001KiB", null)]
    [InlineData("1.5", null)]
    [InlineData("1.5B", null)]
    [InlineData("1.GiB", null)]
    [InlineData(".5GiB", null)]
    [InlineData("1.5.5GiB", null)]
    [InlineData("1,5GiB", null)]
    [InlineData("1.99999999999999999999999GiB", null)]
    [InlineData("16777216.5TiB", null)]
    [InlineData("", null)]
    public void Sizes_parse_or_are_refused(string text, ulong? bytes)
    {
        Assert.Equal(bytes is not null, SpecText.TryParseSize(text, out ByteSize read));
        Assert.Equal(bytes ?? 0, read.Bytes);
    }

    [Theory]
    [InlineData("150%", 150)]
    [InlineData("0%", 0)]
    [InlineData("007%", 7)]
    [InlineData("150", null)]
    [InlineData("1.5%", null)]
    [InlineData("-1%", null)]
    [InlineData("+1%", null)]
    [InlineData("1 %", null)]
    [InlineData("%", null)]
    [InlineData("", null)]
    [InlineData("99999999999%", null)]
    public void Percentages_parse_or_are_refused(string text, int? percent)
    {
        Assert.Equal(percent is not null, SpecText.TryParsePercent(text, out int read));
        Assert.Equal(percent ?? 0, read);
    }

    [Theory]
    [InlineData("memory: 1GiB\nballoon: true\nbalance: {minMemory: 256MiB}", null)]
    [InlineData("memory: 1GiB\nballoon: true\nbalance: {minMemory: 1GiB}", null)]
    [InlineData("memory: 1GiB\nballoon: true\nbalance: {minMemory: 2GiB}", "2MiB to the VM's 1GiB")]
    [InlineData("memory: 1GiB\nballoon: true\nbalance: {minMemory: 1MiB}", "2MiB to the VM's 1GiB")]
    [InlineData("memory: 1GiB\nballoon: true\nbalance: {minMemory: 257MiB}", "multiple of 2MiB")]
    [InlineData("memory: 1GiB\nbalance: {minMemory: 256MiB}", "needs a balloon")]
    [InlineData("memory: 1GiB\nmaxMemory: 2GiB\nballoon: true\nbalance: {minMemory: 256MiB}", "whose memory is fixed")]
    [InlineData(
        "numa: {vnodes: [{cpus: 0, memory: 64MiB}, {cpus: 1, memory: 64MiB}]}\nballoon: true\nbalance: {minMemory: 64MiB}", "of one vnode")]
    [InlineData("numa: true\nballoon: true\nbalance: {minMemory: 64MiB}", "of one vnode")]
    [InlineData("numa: {vnodes: [{cpus: 0, memory: 64MiB, pageSize: 2MiB}]}\nballoon: true\nbalance: {minMemory: 64MiB}", "small pages")]
    public void A_balloon_for_the_balancer_needs_a_vm_of_fixed_memory_and_one_vnode(string more, string? problem)
    {
        string text = "boot: {kernel: k}\n" + more + "\n";
        if (problem is null)
        {
            Assert.True(SpecReader.Read(text, "t.yaml").BalancedByBalloon);
            return;
        }

        SpecProblem found = Assert.Single(Problems(text));
        Assert.Equal("balance.minMemory", found.Path);
        Assert.Contains(problem, found.Message, StringComparison.Ordinal);
        Assert.True(found.Line > 1);
    }

    [Theory]
    [InlineData("boot: {kernel: \"a\\0\"}", "boot.kernel")]
    [InlineData("boot: {kernel: k, initrd: \"a\\0\"}", "boot.initrd")]
    [InlineData("boot: {kernel: k}\ndisks: [{path: \"a\\0\"}]", "disks[0].path")]
    [InlineData("boot: {kernel: k}\nvsock: {path: \"a\\0\"}", "vsock.path")]
    public void A_path_that_no_kernel_takes_is_a_problem_of_the_spec(string text, string field)
    {
        SpecProblem problem = Assert.Single(Problems(text));
        Assert.Equal((field, "contains a zero character"), (problem.Path, problem.Message));
    }

    [Fact]
    public void Time_on_host_cpus_is_a_quota_and_a_weight_within_what_the_kernel_takes()
    {
        VmSpec spec = SpecReader.Read("boot: {kernel: k}\ncpuQuota: 150%\ncpuWeight: 200\n", "t.yaml");
        Assert.Equal((150, 200), (spec.CpuQuota, spec.CpuWeight));
        Assert.Equal(spec.CpuQuota, VmSpecJson.TryRead(VmSpecJson.Write(spec), out _)!.CpuQuota);
        spec = SpecReader.Read("boot: {kernel: k}\n", "t.yaml");
        Assert.Equal((null, null), (spec.CpuQuota, spec.CpuWeight));
        IReadOnlyList<SpecProblem> problems = Problems("boot: {kernel: k}\ncpuQuota: 150\ncpuWeight: 0\n");
        Assert.Equal([(2, "cpuQuota"), (3, "cpuWeight")], problems.Select(p => ((int)p.Line, p.Path)));
        Assert.Contains("\"150\", expected a percentage from 1% to 100000%", problems[0].Message, StringComparison.Ordinal);
        Assert.Equal("cpuQuota", Assert.Single(Problems("boot: {kernel: k}\ncpuQuota: 0%\n")).Path);
        Assert.Equal(
            ["cpuQuota", "cpuWeight"],
            SpecValidation.Validate(new VmSpec { Boot = new BootSpec { Kernel = "k" }, CpuQuota = 100_001, CpuWeight = 10_001 })
                .Select(p => p.Path));
        using JsonDocument schema = JsonDocument.Parse(SpecSchema.Json());
        string pattern = schema.RootElement.GetProperty("properties").GetProperty("cpuQuota").GetProperty("pattern").GetString()!;
        Assert.Matches(pattern, "150%");
        Assert.DoesNotMatch(pattern, "150");
    }

    [Fact]
    public void A_spec_file_that_is_not_there_is_named() =>
        Assert.Equal("no/spec.yaml: does not exist", Assert.Throws<SpecException>(() => SpecReader.ReadFile("no/spec.yaml")).Message);

    [Fact]
    public void Schema_is_JSON_and_closes_every_object()
    {
        using JsonDocument schema = JsonDocument.Parse(SpecSchema.Json());
        JsonElement disk = schema.RootElement.GetProperty("properties").GetProperty("disks").GetProperty("items");
        Assert.False(disk.GetProperty("additionalProperties").GetBoolean());
        Assert.Equal(
            ["path", "nbd", "rbd", "image", "source"],
            disk.GetProperty("oneOf").EnumerateArray().Select(form => form.GetProperty("required")[0].GetString()));
        JsonElement source = disk.GetProperty("properties").GetProperty("source");
        Assert.Equal(
            ["path", "nbd", "rbd", "image"],
            source.GetProperty("oneOf").EnumerateArray().Select(form => form.GetProperty("required")[0].GetString()));
        Assert.False(source.GetProperty("additionalProperties").GetBoolean());
        Assert.Equal(64, disk.GetProperty("properties").GetProperty("queues").GetProperty("maximum").GetInt32());
    }

    [Fact]
    public void Everything_that_is_wrong_with_a_topology_is_named_at_once_with_its_line()
    {
        const string Text = """
            memory: 1GiB
            cpus: 11
            topology: {sockets: 2, dies: 2, cores: 3}
            boot: {kernel: k}
            numa:
              vnodes:
                - {cpus: 0-3, memory: 64MiB, maxMemory: 65MiB}
                - {cpus: "3-9,12", memory: 63MiB, pageSize: 2MiB}
              distances: [[10, 20], [21, 10]]
              latencies: [[90, 150], [150]]
              bandwidths: [[5, 1]]
            """;
        Assert.Equal(
            [
                (3, "topology", "are not 11 CPUs"), (7, "numa.vnodes[0].maxMemory", "whole blocks of 2MiB"),
                (8, "numa.vnodes[1].cpus", "already in vnode 0"), (8, "numa.vnodes[1].memory", "not a multiple of its page size"),
                (9, "numa.distances[1][0]", "same in both directions"),
                (10, "numa.latencies[1]", "1 numbers"), (11, "numa.bandwidths", "1 rows"),
            ],
            Problems(Text).Select(p => ((int)p.Line, p.Path, p.Message)), (expected, actual) => expected.Item1 == actual.Item1
                && expected.Item2 == actual.Item2 && actual.Item3.Contains(expected.Item3, StringComparison.Ordinal));
        SpecProblem die = Assert.Single(
            Problems("boot: {kernel: k}\ntopology: {sockets: 2, cores: 3}\nnuma:\n  vnodes:\n    - {cpus: 0-3, memory: 64MiB}\n    - "
                + "{cpus: 4-5, memory: 64MiB}\n"),
            p => p.Line == 5);
        Assert.Contains("has CPU 3 but not CPU 4 of the same die (CPUs 3-5)", die.Message, StringComparison.Ordinal);
        string uneven = "boot: {kernel: k}\nnuma:\n  vnodes:\n    - {cpus: 0-256, memory: 64MiB}\n"
            + string.Concat(Enumerable.Range(257, 8).Select(c => $"    - {{cpus: {c}, memory: 64MiB}}\n"));
        Assert.Contains("need APIC ids up to 4352", Assert.Single(Problems(uneven)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void No_topology_needs_more_apic_ids_than_there_are()
    {
        uint greatest = 0;
        for (int sockets = 1; sockets <= SpecValidation.MaxCpus; sockets++)
        {
            for (int dies = 1; sockets * dies <= SpecValidation.MaxCpus; dies++)
            {
                for (int cores = 1; sockets * dies * cores <= SpecValidation.MaxCpus; cores++)
                {
                    greatest = Math.Max(
                        greatest, new CpuShape(sockets, dies, cores, SpecValidation.MaxCpus / (sockets * dies * cores)).GreatestApicId);
                }
            }
        }

        Assert.InRange<uint>(greatest, SpecValidation.MaxCpus, SpecValidation.MaxApicId);
    }
}
