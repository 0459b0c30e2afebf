using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Placement;

namespace Vmm.Daemon.Workers;

/// <summary>Through what a worker hears of page faults: one with a resident limit, or one that restores lazily.</summary>
internal static class PagingDevice
{
    /// <exception cref="WorkerException">The host has none, or it may not be opened.</exception>
    internal static FileDescriptorHandle Open()
    {
        try
        {
            return PagingFiles.OpenUserfault();
        }
        catch (HostMismatchException cause)
        {
            throw new WorkerException(ControlCodes.HostMismatch, cause.Message, cause);
        }
    }
}
