using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Mem;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Machine.Ram;

/// <summary>
/// How much memory each vnode has, and asking the guest for more or less: a virtio-mem device each, and below what a vnode started with the
/// balloon. Any thread.
/// </summary>
internal sealed class VnodeSizes : IDisposable
{
    private readonly Lock _gate = new(); // of a change, so that none is half done while a save looks
    private readonly string _name;
    private readonly IReadOnlyList<VnodeSpec> _vnodes;
    private readonly VirtioMem?[] _devices; // by vnode
    private readonly MemoryPacer? _pacer; // null without memory devices
    private readonly VirtioBalloon? _balloon;
    private readonly BalloonFloor? _below; // null where the balloon does not stand for a vnode
    private bool _held;

    /// <param name="name">The VM, for messages.</param>
    /// <param name="vnodes">Its vnodes.</param>
    /// <param name="devices">The memory devices, with the vnode of each.</param>
    /// <param name="balloon">The balloon; null when there is none.</param>
    internal VnodeSizes(
        string name, IReadOnlyList<VnodeSpec> vnodes, IReadOnlyList<(int Vnode, VirtioMem Device)> devices, VirtioBalloon? balloon)
    {
        (_name, _vnodes, _balloon) = (name, vnodes, balloon);
        _devices = new VirtioMem?[vnodes.Count];
        foreach ((int vnode, VirtioMem device) in devices)
        {
            _devices[vnode] = device;
            (_pacer ??= new MemoryPacer(() => balloon)).Add(device);
        }

        // The balloon is one for the whole VM and takes pages from wherever the guest likes: it stands for a vnode only when there is just
        // one.
        _below = balloon is not null && vnodes.Count == 1 ? new BalloonFloor(balloon) : null;
    }

    /// <summary>What each vnode has, was asked for and can have. Any thread.</summary>
    internal IReadOnlyList<VnodeMemoryState> States
    {
        get
        {
            VnodeMemoryState[] states = new VnodeMemoryState[_vnodes.Count];
            for (int i = 0; i < states.Length; i++)
            {
                VirtioMem? device = Device(i);
                VirtioMemInfo info = device?.Info ?? default;
                (ulong hot, ulong heldBack) = device is null ? default : _pacer!.StateOf(device);
                (ulong asked, ulong taken) = _below?.Now ?? default;
                ByteSize least = _vnodes[i].BootMemory, most = least + info.Length, present = least + info.Plugged;
                ByteSize wanted = new(least + hot - asked), there = new(present - Math.Min(taken, present));
                states[i] = new VnodeMemoryState(i, least, most, wanted, there, info.Driven)
                {
                    Block = _vnodes[i].HotBlock,
                    Below = new ByteSize(asked),
                    HeldBack = new ByteSize(heldBack),
                };
            }

            return states;
        }
    }

    /// <summary>
    /// Asks the guest to have this much memory in a vnode. It answers at once: growing and shrinking is the guest's work and takes its
    /// time, <see cref="States"/> tells how far it is. Below what the vnode cannot give back otherwise the balloon is asked, when the VM
    /// has one and a single vnode. Of what the guest cannot spare by its own account it is asked later, when it can
    /// (<see cref="ShrinkPace"/>). Any thread.
    /// </summary>
    /// <param name="vnode">Number of the vnode.</param>
    /// <param name="size">All memory of the vnode.</param>
    /// <param name="force">Ask for all of it at once, whatever the guest has left.</param>
    /// <exception cref="VnodeMemoryException">No such vnode, or it cannot have that much or that little.</exception>
    internal void Set(int vnode, ByteSize size, bool force = false)
    {
        if (vnode < 0 || vnode >= _vnodes.Count)
        {
            throw new VnodeMemoryException($"there is no vnode {vnode}: {_name} has {_vnodes.Count} (0-{_vnodes.Count - 1})");
        }

        VnodeSpec spec = _vnodes[vnode];
        ByteSize most = spec.BootMemory + spec.HotMemory, block = spec.HotBlock;
        if (size > most || (size < spec.BootMemory && (_below is null || size < SpecValidation.MinMemory)))
        {
            throw new VnodeMemoryException(Refusal(vnode, spec, size));
        }

        if (size < spec.BootMemory ? size % ByteSize.BytesPerPage != 0 : (size - spec.BootMemory) % block != 0)
        {
            throw new VnodeMemoryException(size < spec.BootMemory
                ? $"vnode {vnode}: {size.Bytes} bytes is not a multiple of the balloon's 4KiB"
                : $"vnode {vnode} grows in blocks of {block} from {spec.BootMemory}: {size} is between two of them");
        }

        lock (_gate)
        {
            RequireNotHeld();
            if (Device(vnode) is { } device)
            {
                _pacer!.Wish(device, size < spec.BootMemory ? 0 : size - spec.BootMemory, force);
            }

            _below?.Set(size < spec.BootMemory ? spec.BootMemory - size : 0);
        }
    }

    /// <summary>Gives the balloon a target; a size below the vnode's floor that it was made to reach is forgotten.</summary>
    /// <param name="bytes">Size of the balloon.</param>
    /// <exception cref="VnodeMemoryException">The VM has no balloon.</exception>
    internal void SetBalloon(ulong bytes)
    {
        if (_balloon is not { } balloon)
        {
            throw new VnodeMemoryException($"{_name} has no balloon: give it one in its spec (balloon: true)");
        }

        lock (_gate)
        {
            RequireNotHeld();
            if (_below is { } below)
            {
                below.SetTarget(bytes);
            }
            else
            {
                balloon.SetTarget(bytes);
            }
        }
    }

    /// <summary>From the return on the guest is asked for nothing, and a wish is refused, until <see cref="Resume"/>.</summary>
    internal void Hold()
    {
        lock (_gate)
        {
            _held = true;
            _pacer?.Hold();
        }
    }

    /// <summary>Goes on.</summary>
    internal void Resume()
    {
        lock (_gate)
        {
            _held = false;
            _pacer?.Resume();
        }
    }

    /// <summary>The wishes, for saving.</summary>
    internal VnodeSizesStateV1 Capture()
    {
        List<VnodeWishV1> vnodes = [];
        for (int i = 0; i < _devices.Length; i++)
        {
            if (Device(i) is { } device)
            {
                (ulong wanted, bool forced) = _pacer!.WishOf(device);
                vnodes.Add(new VnodeWishV1 { Vnode = i, WantedBytes = wanted, Forced = forced });
            }
        }

        (ulong below, ulong before, bool returning) = _below?.Memory ?? default;
        return new VnodeSizesStateV1 { Vnodes = vnodes, BelowBytes = below, BalloonBytes = before, Returning = returning };
    }

    /// <summary>Takes saved wishes, after the devices took their state.</summary>
    /// <exception cref="StateException">They do not fit.</exception>
    internal void Restore(VnodeSizesStateV1 state)
    {
        HashSet<int> seen = [];
        foreach (VnodeWishV1 wish in state.Vnodes)
        {
            VirtioMem? device = (uint)wish.Vnode < (uint)_devices.Length && seen.Add(wish.Vnode) ? Device(wish.Vnode) : null;
            if (device is null || wish.WantedBytes > device.Info.Length || wish.WantedBytes % device.BlockSize != 0)
            {
                throw new StateException(
                    $"{VnodeSizesStateV1.Kind}: vnode {wish.Vnode} was to have {wish.WantedBytes} bytes that come and go, which it cannot");
            }

            _pacer!.Restore(device, wish.WantedBytes, wish.Forced);
        }

        ulong most = _vnodes[0].BootMemory - SpecValidation.MinMemory;
        bool isBelow = state.BelowBytes != 0 || state.BalloonBytes != 0 || state.Returning;
        if (isBelow && (_below is null || state.BelowBytes > most || state.BelowBytes % ByteSize.BytesPerPage != 0))
        {
            throw new StateException($"{VnodeSizesStateV1.Kind}: vnode 0 was {state.BelowBytes} bytes below its least, which it cannot be");
        }

        if (_below is { } below)
        {
            below.Memory = (state.BelowBytes, state.BalloonBytes, state.Returning);
        }
    }

    private void RequireNotHeld()
    {
        if (_held)
        {
            throw new VnodeMemoryException($"{_name} is being saved: ask again when that is done");
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _pacer?.Dispose();

    private string Refusal(int vnode, VnodeSpec spec, ByteSize size)
    {
        ByteSize most = spec.BootMemory + spec.HotMemory;
        string why = size > most ? ""
            : _balloon is null ? ": below that only a balloon reaches (balloon: true in the spec)"
            : _below is not null ? $": with its balloon from {SpecValidation.MinMemory} on"
            : ": below that only the balloon reaches, which takes pages from whichever vnode the guest likes; "
                + "with several vnodes it is asked for by its own size (--balloon), for the VM as a whole";
        return $"vnode {vnode} can have {spec.BootMemory} to {most} (its minMemory and maxMemory), not {size}{why}";
    }

    private VirtioMem? Device(int vnode) => _devices[vnode];
}
