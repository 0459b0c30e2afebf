using System.Diagnostics;
using Vmm.Storage.Nbd;
using Vmm.Storage.Rbd;

namespace Vmm.Storage.Tests.Rbd;

/// <summary>An image in the cluster of tests/ceph, reached through a published vmm-rbd as a worker reaches it.</summary>
internal sealed class CephImage : IDisposable
{
    private static readonly string? s_conf = Environment.GetEnvironmentVariable("VMM_TEST_CEPH_CONF");

    public CephImage(long size, string? name = null, bool make = true)
    {
        Name = name ?? "t" + Guid.NewGuid().ToString("N")[..12];
        if (make)
        {
            Rbd("create", $"{Pool}/{Name}", "--size", $"{size}B");
        }
    }

    /// <summary>Why there is none here; null when there is.</summary>
    public static string? WhyNot => s_conf is null ? "needs a Ceph cluster: run tests/ceph" : null;

    public static string Pool => "vms";

    public static string Program => Environment.GetEnvironmentVariable("VMM_TEST_RBD_PROGRAM")!;

    public string Name { get; }

    public string Socket { get; } = Path.Combine(Path.GetTempPath(), "rbd-" + Guid.NewGuid().ToString("N")[..12] + ".sock");

    public RbdOptions Options => new()
    {
        Name = $"rbd:{Pool}/{Name}",
        Pool = Pool,
        Image = Name,
        User = "vmm",
        Conf = s_conf!,
        Keyring = Path.Combine(Path.GetDirectoryName(s_conf!)!, "client.vmm.keyring"),
    };

    /// <summary>Runs Ceph's own tool; what it says.</summary>
    public static string Rbd(params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo("rbd", ["-c", s_conf!, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string said = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"rbd {string.Join(' ', arguments)}: {errors.Result}");
        return said;
    }

    public RbdHelper Helper(RbdOptions? disk = null) =>
        new(new RbdHelperOptions { Program = Program, Socket = Socket, Disk = disk ?? Options, User = 65534 });

    public NbdBackend Open(bool readOnly = false, NbdOptions? options = null)
    {
        RbdHelper helper = Helper(Options with { ReadOnly = readOnly });
        helper.Open().Dispose(); // it is connected to again by the disk
        return NbdBackend.Open(
            options ?? new NbdOptions { Name = Options.Name, ReadOnly = readOnly, KeepsUnflushed = true }, helper);
    }

    public void Dispose() => File.Delete(Socket);
}

/// <summary>A test that needs a cluster; skipped, with the reason, where there is none.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class CephFactAttribute : FactAttribute
{
    public CephFactAttribute() => Skip = CephImage.WhyNot;
}
