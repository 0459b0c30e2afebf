using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.VhostUser;

/// <summary>A virtio device whose rings a back end in another process serves. Owns the connection.</summary>
public abstract class VhostUserDevice : VirtioDevice
{
    /// <summary>Most pieces that the guest's memory may be in.</summary>
    public const int MostMemoryPieces = VhostUserMessage.MostRegions;

    private readonly VhostUserUse _use;
    private readonly Func<IOrphanHandler?> _orphan;
    private readonly Lock _gate = new();
    private VhostUserPath? _path; // under the gate, as the next one
    private IVirtioInterrupts? _interrupts;
    private bool _changedUnseen; // the driver may have read the configuration before it changed, and heard nothing; under the gate
    private bool _disposed;

    /// <summary>Connects a device with its back ends.</summary>
    /// <param name="name">Names its thread, e.g. <c>fs0</c>.</param>
    /// <param name="link">The connection, owned by the device from now on.</param>
    /// <param name="memory">All memory that the guest may ever have.</param>
    /// <param name="inOrder">Back ends complete what is in a ring in order.</param>
    /// <param name="orphan">Makes what answers while there is no back end; null: the driver waits.</param>
    /// <param name="counts">What back ends complete is counted.</param>
    private protected VhostUserDevice(
        string name, VhostUserLink link, IReadOnlyList<MemoryExtent> memory, bool inOrder, Func<IOrphanHandler?> orphan,
        bool counts = false)
    {
        _use = new VhostUserUse { Name = name, Link = link, Memory = memory, InOrder = inOrder, Counts = counts };
        _orphan = orphan;
        link.Returned = Return;
        link.Gone = BackEndLost;
    }

    /// <summary>Its name, e.g. <c>fs0</c>.</summary>
    public string Name => _use.Name;

    /// <summary>A back end is there. Any thread.</summary>
    public bool IsConnected => Link.IsConnected;

    /// <summary>How often a back end was lost. Any thread.</summary>
    public long Losses => Link.Losses;

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds => UnixStream.TransferNeeds;

    /// <summary>Where back ends come from.</summary>
    private protected VhostUserLink Link => _use.Link;

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Reset();
        lock (_gate)
        {
            VhostUserPath path = new(_use with { Orphan = _orphan() }, activation);
            path.Start();
            _path = path;
            _interrupts = activation.Interrupts;
            if (_changedUnseen)
            {
                _changedUnseen = false;
                _interrupts.SignalConfigChanged();
            }
        }
    }

    /// <inheritdoc/>
    public override void Reset() => TryReset(Timeout.InfiniteTimeSpan);

    /// <inheritdoc/>
    public override bool TryReset(TimeSpan patience)
    {
        VhostUserPath? path;
        lock (_gate)
        {
            path = _path;
            _interrupts = null;
        }

        path?.Stop();
        if (path?.TryJoin(patience) == false)
        {
            return false;
        }

        path?.Dispose();
        lock (_gate)
        {
            _path = null;
        }

        return true;
    }

    /// <inheritdoc/>
    public override bool TryHold(TimeSpan patience) => Path?.TryHold(patience) ?? true;

    /// <inheritdoc/>
    public override void Resume() => Path?.Resume();

    /// <summary>Refuses: what it would need is known to its back end alone.</summary>
    /// <exception cref="StateException">Always; says why.</exception>
    public abstract void ThrowIfSaved();

    /// <inheritdoc/>
    public override void Save(StateWriter to) => ThrowIfSaved();

    /// <summary>Another back end is there. Any thread.</summary>
    private protected virtual void BackEndReturned() { }

    /// <summary>A back end is lost. Any thread.</summary>
    private protected virtual void BackEndLost() { }

    /// <summary>The driver is to read the configuration again. Any thread.</summary>
    private protected void TellConfigChanged()
    {
        lock (_gate)
        {
            _changedUnseen = _interrupts is null;
            _interrupts?.SignalConfigChanged();
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && !_disposed)
        {
            _disposed = true;
            Reset();
            Link.Dispose();
        }
    }

    private VhostUserPath? Path
    {
        get
        {
            lock (_gate)
            {
                return _path;
            }
        }
    }

    private void Return()
    {
        BackEndReturned();
        Path?.Wake();
    }
}
