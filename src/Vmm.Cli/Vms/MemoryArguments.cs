using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Cli.Vms;

/// <summary>What <c>vmmctl vm memory</c> is given; null is not given.</summary>
internal sealed record MemoryArguments
{
    /// <summary>The vnode to change.</summary>
    internal int Vnode { get; init; }

    /// <summary>All memory it shall have.</summary>
    internal string? Size { get; init; }

    /// <summary>The balancer decides about the vnode again.</summary>
    internal bool Auto { get; init; }

    /// <summary>Size the balloon shall have.</summary>
    internal string? Balloon { get; init; }

    /// <summary>Most memory that is resident.</summary>
    internal string? Resident { get; init; }

    /// <summary>The guest is asked for all of it at once, whatever it has left.</summary>
    internal bool Force { get; init; }

    /// <summary>Seconds to wait for the guest.</summary>
    internal int Timeout { get; init; }

    /// <summary>What is to change; null: nothing.</summary>
    /// <exception cref="UsageException">It makes no sense.</exception>
    internal MemoryWish? Wish()
    {
        ulong? bytes = Bytes(Size, "--size"), balloonBytes = Bytes(Balloon, "--balloon");
        if (Timeout is < 0 or > 600)
        {
            throw new UsageException($"--timeout {Timeout}: expected 0 to 600 seconds");
        }

        if (Auto && bytes is not null)
        {
            throw new UsageException("vm memory: give either --size or --auto");
        }

        if (Force && bytes is null)
        {
            throw new UsageException("vm memory: --force is about a --size");
        }

        if (Resident is not null && !MemoryPortion.TryParse(Resident, out _))
        {
            throw new UsageException($"--resident {Resident}: expected a size such as 256MiB, or a percentage such as 25%");
        }

        // A vnode alone would have no effect, which the daemon takes for a slip.
        bool ofVnode = bytes is not null || Auto || balloonBytes is not null;
        return ofVnode || Resident is not null
            ? new MemoryWish(ofVnode ? Vnode : null, bytes, balloonBytes, Auto ? true : null, Force ? true : null, Resident)
            : null;
    }

    private static ulong? Bytes(string? text, string option) =>
        text is null ? null
        : SpecText.TryParseSize(text, out ByteSize size) ? size
        : throw new UsageException($"{option} {text}: expected a size such as 512MiB or 1.5GiB, a whole number of bytes");
}
