using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Memory;

namespace Vmm.Machine.Moving;

/// <summary>
/// Which pages of a machine are to be sent, while it goes on: KVM and devices tell what they write, network devices leave the kernel's
/// path, which does not, and no page goes back to the host. Disposing ends all that. Memory that is passed needs nothing of it: who gets
/// it sees the same pages.
/// </summary>
internal sealed class MoveTracking : IDisposable
{
    private readonly VirtualMachine _machine;
    private readonly IDisposable? _discards;
    private ulong[] _bitmap = [];

    /// <summary>Begins, with all that was ever touched.</summary>
    /// <exception cref="Interop.KernelException">KVM refused.</exception>
    internal MoveTracking(VirtualMachine machine, bool passes)
    {
        _machine = machine;
        IReadOnlyList<MemoryPart> parts = MemoryPart.Of(machine);
        if (passes)
        {
            Passed = [.. parts.Select(part => part.Memory)];
            Total = Passed.Aggregate(0UL, (total, memory) => total + memory.Placement.Size);
            return;
        }

        _discards = machine.MapOwner.Discards.Inhibit("the VM is being moved");
        try
        {
            Parts = [.. parts.Select((part, i) => new PendingPages(part, i))];
            SetPaths(kept: true);
            machine.MapOwner.StartDirtyLog();
            foreach (PendingPages part in Parts)
            {
                part.AddTouched(); // after the log has begun: what is touched from here on is in it
                Total += part.Pages * MoveFrame.PageBytes;
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Memory that is passed as it is: all of it, or none.</summary>
    internal IReadOnlyList<VnodeMemory> Passed { get; } = [];

    /// <summary>The pages, by memory.</summary>
    internal IReadOnlyList<PendingPages> Parts { get; } = [];

    /// <summary>Bytes of all memory.</summary>
    internal ulong Total { get; }

    /// <summary>Bytes that are to be sent. Not in a round.</summary>
    internal ulong Left
    {
        get
        {
            ulong pages = 0;
            foreach (PendingPages part in Parts)
            {
                pages += part.Count;
            }

            return pages * MoveFrame.PageBytes;
        }
    }

    /// <summary>Adds what was written since the last time. Not in a round.</summary>
    internal void Collect()
    {
        foreach (MemorySlot slot in _discards is null ? [] : _machine.MapOwner.Slots)
        {
            if (slot.Kind != MemorySlotKind.Ram)
            {
                continue;
            }

            PendingPages part = Parts.FirstOrDefault(each => each.Has(slot))
                ?? throw new MoveException($"there is memory at {slot.Region.Start} that was not there when the move began");
            int words = (int)((slot.Region.Length.Pages + 63) / 64);
            if (_bitmap.Length < words)
            {
                _bitmap = new ulong[words];
            }

            _machine.MapOwner.TakeDirty(slot, _bitmap);
            part.Add(slot, _bitmap);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_discards is null)
        {
            return;
        }

        _machine.MapOwner.StopDirtyLog();
        SetPaths(kept: false);
        _discards.Dispose();
    }

    private void SetPaths(bool kept)
    {
        foreach (VirtioDevice device in _machine.DeviceSet.All.Select(each => each.Device))
        {
            (device as VirtioNet)?.KeepFromKernel(kept);
        }
    }
}
