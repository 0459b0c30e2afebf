using Vmm.Interop;

namespace Vmm.Devices.Virtio.Mem;

/// <summary>
/// The RAM behind a virtio-mem device: what the guest can reach of it changes block by block. Called from the device's queue thread, one
/// call at a time.
/// </summary>
public interface IPluggableMemory
{
    /// <summary>What the calls below ask of the kernel beyond what every thread does.</summary>
    SyscallNeeds Needs => SyscallNeeds.None;

    /// <summary>
    /// Makes a range of the device's region RAM that reads as zeros. False when the host cannot give it now: nothing changed then.
    /// </summary>
    /// <param name="offset">From the start of the region, bytes; whole blocks.</param>
    /// <param name="length">Bytes; whole blocks.</param>
    bool TryPlug(ulong offset, ulong length);

    /// <summary>Takes a range back: its content is lost, its memory goes to the host.</summary>
    /// <param name="offset">From the start of the region, bytes; whole blocks.</param>
    /// <param name="length">Bytes; whole blocks.</param>
    void Unplug(ulong offset, ulong length);

    /// <summary>
    /// Takes over what a saved machine had, into a fresh memory in which its content lies already: plugged blocks become RAM with what is
    /// in them, the others keep nothing.
    /// </summary>
    /// <param name="plugged">One a block of the region.</param>
    /// <returns>False when the host cannot give it now; the memory is of no use then.</returns>
    bool TryRestore(ReadOnlySpan<bool> plugged);
}
