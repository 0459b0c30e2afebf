using System.Diagnostics;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Machine.Tests.Run;
using Vmm.Memory;
using Vmm.Placement.Tests;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Layout;

/// <summary>Random topologies: iasl, a walk of the tables here, and a micro-guest's walk agree with the spec.</summary>
public sealed class TopologyTableTests
{
    [Fact]
    public void A_hundred_random_topologies_decompile_and_say_what_the_spec_says()
    {
        Random random = new(20261123);
        string folder = Directory.CreateTempSubdirectory("vmm-topology-").FullName;
        try
        {
            int files = 0, hmats = 0, packed = 0, devices = 0;
            for (int round = 0; round < 100; round++)
            {
                VmSpec spec = RandomTopologies.Make(random, ByteSize.GiB(64));
                Assert.Empty(SpecValidation.Validate(spec));
                Dictionary<string, byte[]> tables = GuestTables.Of(spec);
                Assert.Equal(GuestTables.Expected(spec), GuestTables.Walk(tables));
                devices += spec.Disks.Count;
                packed += spec.Topology is null ? 0 : 1;
                foreach ((string name, byte[] table) in tables)
                {
                    File.WriteAllBytes(Path.Combine(folder, $"{name}-{round}.dat"), table);
                    files++;
                    hmats += name is "HMAT" ? 1 : 0;
                }
            }

            Assert.True(hmats > 30 && packed > 30 && devices > 100);
            string said = Decompile(folder);
            Assert.DoesNotContain("Error", said, StringComparison.Ordinal);
            Assert.DoesNotContain("Warning", said, StringComparison.Ordinal);
            Assert.Equal(files, Directory.GetFiles(folder, "*.dsl").Length);
            Assert.Equal(devices, Directory.GetFiles(folder, "SRAT-*.dsl")
                .Sum(file => File.ReadLines(file).Count(l => l.Contains("[Generic Initiator Affinity]", StringComparison.Ordinal))));
            Assert.All(Directory.GetFiles(folder, "?[MR]AT-*.dsl"),
                file => Assert.DoesNotContain("Unknown", File.ReadAllText(file), StringComparison.Ordinal));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [KvmFact]
    [Trait("Tier", "kvm")]
    public void A_guest_finds_in_its_tables_what_the_spec_says()
    {
        Random random = new(11);
        string disk = Path.GetTempFileName();
        File.WriteAllBytes(disk, new byte[1 << 20]);
        for (int round = 0; round < 8; round++)
        {
            VmSpec made = RandomTopologies.Make(random, ByteSize.MiB(512));
            VmSpec guest = GuestKit.GuestSpec("numa");
            VmSpec spec = made with
            {
                Name = guest.Name,
                Boot = guest.Boot,
                Rng = false,
                Disks = [.. made.Disks.Select(d => d with { Path = disk, ReadOnly = true })]
            };
            using Terminal console = new();
            using VirtualMachine machine = VirtualMachine.Create(spec, console);
            using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(90));
            RunResult result = machine.Run(deadline.Token);
            string said = console.Said;
            Assert.True(result.Reason == ExitReason.DebugExit && result.ExitCode == 0, $"{result}: {said}");
            Assert.Equal(GuestTables.Expected(spec), said.Split('\n')
                .Select(l => l.Trim())
                .Where(l => l.Split(' ')[0] is "MADT" or "CPU" or "MEM" or "INIT" or "DIST" or "HMAT"));
        }

        File.Delete(disk);
    }

    [Fact]
    public void Tables_of_the_most_processors_fit_below_1_mib_and_decompile()
    {
        VmSpec spec = NumaSplit.Apply(
            new VmSpec { Cpus = SpecValidation.MaxCpus, Memory = ByteSize.GiB(64), Boot = new BootSpec { Kernel = "k" } }, 4);
        Assert.Empty(SpecValidation.Validate(spec));
        Dictionary<string, byte[]> tables = GuestTables.Of(spec);
        Assert.True(tables.Values.Sum(t => t.Length) < 0x1_F000 - 64, $"{tables.Values.Sum(t => t.Length)} bytes");
        string folder = Directory.CreateTempSubdirectory("vmm-wide-").FullName;
        try
        {
            foreach (string name in (string[])["APIC", "SRAT", "DSDT"])
            {
                if (tables.TryGetValue(name, out byte[]? table))
                {
                    File.WriteAllBytes(Path.Combine(folder, $"{name}.dat"), table);
                }
            }

            string said = Decompile(folder);
            Assert.DoesNotContain("Error", said, StringComparison.Ordinal);
            string madt = File.ReadAllText(Path.Combine(folder, "APIC.dsl"));
            Assert.DoesNotContain("Unknown", madt, StringComparison.Ordinal);
            Assert.Equal(SpecValidation.MaxCpus - 255, madt.Split('\n')
                .Count(l => l.Contains("[Processor Local x2APIC]", StringComparison.Ordinal)));
            Assert.Single(madt.Split('\n'), l => l.Contains("[Local x2APIC NMI]", StringComparison.Ordinal));
            Assert.Equal(SpecValidation.MaxCpus - 255, File.ReadLines(Path.Combine(folder, "SRAT.dsl"))
                .Count(l => l.Contains("x2APIC Affinity", StringComparison.Ordinal)));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Decompile(string folder)
    {
        ProcessStartInfo start =
            new("sh", ["-c", "iasl -d *.dat 2>&1"]) { WorkingDirectory = folder, RedirectStandardOutput = true, UseShellExecute = false };
        using Process process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(120_000), "iasl does not end");
        Assert.True(process.ExitCode == 0, output);
        return output;
    }
}
