namespace Vmm.Perf;

/// <summary>How a disk is opened: the same raw file for every contender.</summary>
/// <param name="Name">Shown in the report.</param>
/// <param name="Direct">Past the host's page cache (O_DIRECT), or through it.</param>
/// <param name="Aio">QEMU's engine: io_uring, native or threads.</param>
/// <param name="IoThread">QEMU: a thread of its own for the disk.</param>
internal sealed record DiskMode(string Name, bool Direct, string Aio = "io_uring", bool IoThread = false);

/// <summary>Something that runs a micro-guest: vmmctl or QEMU's microvm.</summary>
internal abstract class Contender
{
    internal abstract string Name { get; }

    /// <summary>The exit code of the process when the guest ended well (debug-exit code 0).</summary>
    internal abstract int Success { get; }

    /// <summary>The command line.</summary>
    /// <param name="elf">The guest.</param>
    /// <param name="cmdline">What it is told.</param>
    /// <param name="disk">A raw file.</param>
    /// <param name="mode">How it is opened.</param>
    /// <param name="tap">A network device on a tap.</param>
    /// <param name="passt">A network device behind passt, at this socket for who does not start it.</param>
    internal abstract string[] Command(
        string elf, string cmdline, string? disk = null, DiskMode? mode = null, string? tap = null, string? passt = null);
}

internal sealed class Vmmctl(string program, string name = "vmm") : Contender
{
    internal override string Name => name;

    internal override int Success => 0;

    internal override string[] Command(
        string elf, string cmdline, string? disk = null, DiskMode? mode = null, string? tap = null, string? passt = null)
    {
        List<string> words = [program, "run", "--quiet", "--no-serial-input", "--memory", "128MiB", "--kernel", elf, "--cmdline", cmdline];
        if (disk is not null)
        {
            words.AddRange(["--virtio-transport", "mmio", "--disk", $"{disk},cache={(mode!.Direct ? "direct" : "buffered")}"]);
        }

        if (tap is not null)
        {
            words.AddRange(["--virtio-transport", "mmio", "--net", "tap=" + tap]);
        }

        if (passt is not null)
        {
            words.AddRange(
            [
                "--virtio-transport", "mmio", "--net", "user",
                "--publish", $"{UserNetBench.HostAddress}:{UserNetBench.EchoPort}/udp",
                "--publish", $"{UserNetBench.HostAddress}:{UserNetBench.EndPort}/udp",
            ]);
        }

        return [.. words];
    }
}

internal sealed class QemuMicrovm(string program) : Contender
{
    internal override string Name => "qemu";

    // isa-debug-exit ends QEMU with code * 2 + 1.
    internal override int Success => 1;

    internal override string[] Command(
        string elf, string cmdline, string? disk = null, DiskMode? mode = null, string? tap = null, string? passt = null)
    {
        // Without ARCH_CAPABILITIES in KVM, -cpu host aborts on MSR 0x10a.
        List<string> words = [program, "-M", "microvm", "-enable-kvm", "-cpu", "host,-arch-capabilities", "-m", "128M", "-kernel", elf,
            "-append", cmdline,
            "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"];
        if (disk is not null)
        {
            string ioThread = mode!.IoThread ? ",iothread=io" : "";
            if (mode.IoThread)
            {
                words.AddRange(["-object", "iothread,id=io"]);
            }

            words.AddRange(["-global", "virtio-mmio.force-legacy=false",
                "-drive", $"id=d,file={disk},format=raw,if=none,aio={mode.Aio},cache={(mode.Direct ? "none" : "writeback")}",
                "-device", $"virtio-blk-device,drive=d{ioThread}"]);
        }

        if (tap is not null)
        {
            words.AddRange(
            [
                "-global", "virtio-mmio.force-legacy=false", "-netdev", $"tap,id=n,ifname={tap},script=no,downscript=no,vhost=off",
                "-device", "virtio-net-device,netdev=n"
            ]);
        }

        if (passt is not null)
        {
            words.AddRange(
            [
                "-global", "virtio-mmio.force-legacy=false",
                "-netdev", $"stream,id=n,server=off,addr.type=unix,addr.path={passt}", "-device", "virtio-net-device,netdev=n",
            ]);
        }

        return [.. words];
    }
}
