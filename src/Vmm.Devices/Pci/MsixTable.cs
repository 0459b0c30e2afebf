using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Pci;

/// <summary>
/// MSI-X table and pending bits (PCI Express base spec 6.1.4.2, 7.7.2). Register access comes from vCPU threads under the device's lock;
/// <see cref="Signal"/> from any thread, without a lock: a message that meets a mask stays pending, and whoever clears the mask sends it.
/// </summary>
public sealed class MsixTable(int vectors, IInterruptMessageFactory factory, object device)
{
    private const ushort ControlEnable = 0x8000;
    private const ushort ControlFunctionMask = 0x4000;
    private readonly Vector[] _vectors = NewVectors(vectors);
    private int _control;

    /// <summary>Number of vectors.</summary>
    public int Count => _vectors.Length;

    /// <summary>Bytes of the table.</summary>
    public int TableLength => Count * 16;

    /// <summary>True when software turned MSI-X on.</summary>
    public bool Enabled => (Volatile.Read(ref _control) & ControlEnable) != 0;

    /// <summary>Message control register was written.</summary>
    public void SetControl(ushort value)
    {
        Volatile.Write(ref _control, value);
        for (int i = 0; i < _vectors.Length; i++)
        {
            FollowMask(_vectors[i]);
            SendPending(_vectors[i]);
        }
    }

    /// <summary>Sends vector <paramref name="index"/>, or leaves it pending while masked. Unknown vectors are ignored.</summary>
    public void Signal(int index)
    {
        if ((uint)index >= (uint)_vectors.Length || !Enabled)
        {
            return;
        }

        Vector vector = _vectors[index];
        Volatile.Write(ref vector.Pending, 1);
        Interlocked.MemoryBarrier();
        SendPending(vector);
    }

    /// <summary>
    /// The eventfd that is vector <paramref name="index"/>, for one who sends its interrupts past <see cref="Signal"/>, until
    /// <see cref="TakeTriggersBack"/>; null where software has not set the vector up, or there are no eventfds. While the vector is masked,
    /// what is written there stays, and shows as its pending bit. Under the device's lock, on a vCPU's thread.
    /// </summary>
    public EventFd? HandTrigger(int index)
    {
        if ((uint)index >= (uint)_vectors.Length || _vectors[index] is not { Message: IInterruptRoute route } vector)
        {
            return null;
        }

        vector.Handed = true;
        FollowMask(vector);
        return route.Trigger;
    }

    /// <summary>Nobody writes to a trigger any more. Under the device's lock, on a vCPU's thread.</summary>
    public void TakeTriggersBack()
    {
        foreach (Vector vector in _vectors)
        {
            if (vector.Handed)
            {
                vector.Handed = false;
                Hold(vector, false);
            }
        }
    }

    /// <summary>True when somebody wrote to a trigger while MSI-X is off, since the last call.</summary>
    public bool TakeHeld()
    {
        bool any = false;
        foreach (Vector vector in _vectors)
        {
            any |= vector is { Held: true, Message: IInterruptRoute route } && route.Trigger.TryTake(out _);
        }

        return any;
    }

    /// <summary>Called when software has set up a vector for the first time; under the device's lock.</summary>
    public Action<int>? Routed { get; init; }

    /// <summary>Reads the table; beyond it zero.</summary>
    public void ReadTable(ulong offset, Span<byte> data)
    {
        data.Clear();
        int entry = (int)Math.Min(offset / 16, int.MaxValue);
        if (entry >= _vectors.Length)
        {
            return;
        }

        Span<byte> raw = stackalloc byte[32];
        Vector vector = _vectors[entry];
        BinaryPrimitives.WriteUInt64LittleEndian(raw, vector.Address);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[8..], vector.Data);
        BinaryPrimitives.WriteUInt32LittleEndian(raw[12..], (uint)vector.Control);
        raw.Slice((int)(offset % 16), Math.Min(data.Length, 16)).CopyTo(data);
    }

    /// <summary>Writes the table: aligned 32- and 64-bit accesses only (6.1.4.2), others are ignored.</summary>
    public void WriteTable(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset / 16 >= (ulong)_vectors.Length || data.Length is not (4 or 8) || offset % (ulong)data.Length != 0)
        {
            return;
        }

        int index = (int)(offset / 16);
        for (int done = 0; done < data.Length; done += 4)
        {
            WriteField(index, (int)(offset % 16) + done, BinaryPrimitives.ReadUInt32LittleEndian(data[done..]));
        }

        FollowMask(_vectors[index]);
        SendPending(_vectors[index]);
    }

    /// <summary>Reads the pending bits.</summary>
    public void ReadPending(ulong offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            byte bits = 0;
            for (int bit = 0; bit < 8; bit++)
            {
                ulong index = ((offset + (ulong)i) * 8) + (ulong)bit;
                if (index < (ulong)_vectors.Length && IsPending(_vectors[(int)index]))
                {
                    bits |= (byte)(1 << bit);
                }
            }

            data[i] = bits;
        }
    }

    /// <summary>The state for saving; nobody signals meanwhile. Under the device's lock, or while no vCPU runs.</summary>
    public MsixStateV1 Capture() => new()
    {
        Vectors =
        [
            .. _vectors.Select(v => new MsixVectorStateV1
            {
                Address = v.Address,
                Data = v.Data,
                Masked = (Volatile.Read(ref v.Control) & 1) != 0,
                Pending = IsPending(v),
                Routed = v is { Routed: true, Message: not null },
            }),
        ],
    };

    /// <summary>Takes a saved state, fresh; sends nothing before its function's message control is written.</summary>
    /// <exception cref="StateException">It has another number of vectors.</exception>
    public void Restore(MsixStateV1 state)
    {
        if (state.Vectors.Count != _vectors.Length)
        {
            throw new StateException($"{MsixStateV1.Kind}: it has {state.Vectors.Count} vectors, the function {_vectors.Length}");
        }

        for (int i = 0; i < _vectors.Length; i++)
        {
            Vector vector = _vectors[i];
            MsixVectorStateV1 saved = state.Vectors[i];
            vector.Address = saved.Address & ~3UL;
            vector.Data = saved.Data;
            Volatile.Write(ref vector.Control, saved.Masked ? 1 : 0);
            Volatile.Write(ref vector.Pending, saved.Pending ? 1 : 0);
            if (saved.Routed || !saved.Masked)
            {
                Route(i, vector);
            }
        }
    }

    /// <summary>Gives the interrupts back.</summary>
    public void Release() => factory.Release(device);

    private static Vector[] NewVectors(int count)
    {
        Vector[] vectors = new Vector[count];
        for (int i = 0; i < count; i++)
        {
            vectors[i] = new Vector();
        }

        return vectors;
    }

    private void WriteField(int index, int field, uint value)
    {
        Vector vector = _vectors[index];
        switch (field)
        {
            case 0:
                vector.Address = (vector.Address & 0xFFFF_FFFF_0000_0000) | (value & ~3u);
                vector.Routed = false;
                break;
            case 4:
                vector.Address = (vector.Address & 0xFFFF_FFFF) | ((ulong)value << 32);
                vector.Routed = false;
                break;
            case 8:
                vector.Data = value;
                vector.Routed = false;
                break;
            default:
                if ((value & 1) == 0 && !vector.Routed)
                {
                    Route(index, vector);
                }

                Volatile.Write(ref vector.Control, (int)(value & 1));
                break;
        }

        // Software may also change an unmasked entry; the new message counts from now on.
        if (field != 12 && Volatile.Read(ref vector.Control) == 0)
        {
            Route(index, vector);
        }
    }

    private void Route(int index, Vector vector)
    {
        bool first = vector.Message is null;
        vector.Message = factory.Route(device, index, vector.Address, vector.Data);
        vector.Routed = true;
        if (first)
        {
            Routed?.Invoke(index);
        }
    }

    private bool IsOpen(Vector vector) =>
        (Volatile.Read(ref _control) & (ControlEnable | ControlFunctionMask)) == ControlEnable
        && (Volatile.Read(ref vector.Control) & 1) == 0;

    private bool IsPending(Vector vector)
    {
        if (Enabled && vector is { Held: true, Message: IInterruptRoute route } && route.Trigger.TryTake(out _))
        {
            Volatile.Write(ref vector.Pending, 1);
        }

        return Volatile.Read(ref vector.Pending) != 0;
    }

    // Only of a vector that others send: for our own devices a mask costs no system call.
    private void FollowMask(Vector vector)
    {
        if (vector.Handed)
        {
            Hold(vector, !IsOpen(vector));
        }
    }

    private static void Hold(Vector vector, bool hold)
    {
        if (vector.Held == hold || vector.Message is not IInterruptRoute route)
        {
            return;
        }

        vector.Held = hold;
        if (hold)
        {
            route.Mask();
        }
        else if (route.Unmask() && vector.Handed)
        {
            Volatile.Write(ref vector.Pending, 1); // sent, or kept, by who comes next
        }
    }

    private void SendPending(Vector vector)
    {
        if (IsOpen(vector) && Interlocked.Exchange(ref vector.Pending, 0) != 0)
        {
            vector.Message?.Signal();
        }
    }

    private sealed class Vector
    {
        public ulong Address;
        public uint Data;
        public int Control = 1; // masked after reset
        public int Pending;
        public bool Routed;
        public bool Handed; // others write to its trigger
        public bool Held;   // and what they write stays there
        public volatile IInterruptMessage? Message;
    }
}
