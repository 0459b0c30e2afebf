using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Memory;

namespace Vmm.Devices.Firmware;

/// <summary>
/// The firmware configuration device (QEMU's docs/specs/fw_cfg; ACPI id QEMU0002): 12 ports through which a firmware reads what its machine
/// is. A number chooses an item at port 0, port 1 gives its bytes one after the other, and ports 4 to 11 take the address of a request
/// that copies many at once. Items cannot be written. What is beyond the end of an item reads as zeros.
/// </summary>
/// <param name="items">What can be read.</param>
/// <param name="memory">Where requests are, and what they ask for goes.</param>
public sealed class FwCfg(FwCfgItems items, DmaSpace memory) : IBusDevice
{
    /// <summary>First of its ports.</summary>
    public const ulong Port = 0x510;

    /// <summary>Number of its ports.</summary>
    public const ulong Length = 12;

    /// <summary>Most bytes of one request, and of an item. A larger request fails, so that none keeps a vCPU for long.</summary>
    public const uint MostBytes = 256 << 10;

    private const ulong SelectorOffset = 0, DataOffset = 1, AddressOffset = 4, AddressLowOffset = 8;
    private const ulong AddressSignature = 0x5145_4D55_2043_4647; // "QEMU CFG", what a read of the address gives
    private const int RequestBytes = 16;
    private static readonly TimeSpan s_pageTime = TimeSpan.FromSeconds(10);

    private readonly Lock _gate = new();
    private readonly PageLease _lease = new(1);
    private ushort _key;
    private uint _offset, _addressHigh;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        if (offset == DataOffset)
        {
            lock (_gate)
            {
                Take(data[..1]);
            }
        }
        else if (offset >= AddressOffset)
        {
            Span<byte> signature = stackalloc byte[8];
            BinaryPrimitives.WriteUInt64BigEndian(signature, AddressSignature);
            ReadOnlySpan<byte> rest = signature[(int)(offset - AddressOffset)..];
            rest[..Math.Min(rest.Length, data.Length)].CopyTo(data);
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            switch (offset)
            {
                case SelectorOffset when data.Length == 2:
                    Select(BinaryPrimitives.ReadUInt16LittleEndian(data));
                    break;
                case AddressOffset when data.Length == 8:
                    Transfer(new GuestAddress(BinaryPrimitives.ReadUInt64BigEndian(data)));
                    break;
                case AddressOffset when data.Length == 4:
                    _addressHigh = BinaryPrimitives.ReadUInt32BigEndian(data);
                    break;
                case AddressLowOffset when data.Length == 4:
                    Transfer(new GuestAddress(((ulong)_addressHigh << 32) | BinaryPrimitives.ReadUInt32BigEndian(data)));
                    break;
                default:
                    break; // items are not written
            }
        }
    }

    /// <summary>The state for saving.</summary>
    public FwCfgStateV1 Capture()
    {
        lock (_gate)
        {
            return new FwCfgStateV1 { Key = _key, Offset = _offset, AddressHigh = _addressHigh };
        }
    }

    /// <summary>Takes a saved state.</summary>
    public void Restore(FwCfgStateV1 state)
    {
        lock (_gate)
        {
            (_key, _offset, _addressHigh) = (state.Key, state.Offset, state.AddressHigh);
        }
    }

    private void Select(ushort key) => (_key, _offset) = (key, 0);

    private void Take(Span<byte> destination)
    {
        ReadOnlySpan<byte> item = items.Find(_key);
        int from = (int)Math.Min(_offset, (uint)item.Length), count = Math.Min(item.Length - from, destination.Length);
        item.Slice(from, count).CopyTo(destination);
        destination[count..].Clear();
        Skip((uint)destination.Length);
    }

    private void Skip(uint count) => _offset = (uint)Math.Min((ulong)_offset + count, uint.MaxValue);

    /// <summary>
    /// Carries a request out: control, length, address, big endian. What became of it is left in its control word. One that is not in
    /// memory has nobody to be told.
    /// </summary>
    private void Transfer(GuestAddress at)
    {
        _addressHigh = 0;
        Span<byte> request = stackalloc byte[RequestBytes];
        if (!memory.TryRead(at, request))
        {
            return;
        }

        uint control = BinaryPrimitives.ReadUInt32BigEndian(request);
        bool done = TryCarryOut(
            (FwCfgControl)(control & (uint)FwCfgControl.All),
            (ushort)(control >> 16),
            BinaryPrimitives.ReadUInt32BigEndian(request[4..]),
            new GuestAddress(BinaryPrimitives.ReadUInt64BigEndian(request[8..])));
        Span<byte> answer = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(answer, done ? 0 : (uint)FwCfgControl.Error);
        _ = memory.TryWrite(at, answer);
    }

    private bool TryCarryOut(FwCfgControl control, ushort key, uint length, GuestAddress at)
    {
        if ((control & FwCfgControl.Select) != 0)
        {
            Select(key);
        }

        if ((control & FwCfgControl.Read) != 0)
        {
            return length == 0 || TryRead(at, length);
        }

        if ((control & FwCfgControl.Write) != 0)
        {
            return length == 0;
        }

        if ((control & FwCfgControl.Skip) != 0)
        {
            Skip(length);
        }

        return true;
    }

    private bool TryRead(GuestAddress at, uint length)
    {
        if (length > MostBytes)
        {
            return false;
        }

        _lease.Forget();
        _ = _lease.TryAdd(new GuestRange(at, length));
        if (!TryAcquire())
        {
            return false;
        }

        Take(_lease.Bytes(0));
        _lease.Release();
        return true;
    }

    /// <summary>The vCPU that asked waits itself for pages that are not there: a firmware has nothing else to do.</summary>
    private bool TryAcquire()
    {
        while (true)
        {
            PageWait wait = new();
            Acquired answer = memory.TryAcquire(_lease, DmaAccess.Write, wait);
            if (answer != Acquired.Pending)
            {
                return answer == Acquired.Ready;
            }

            if (!wait.Ready.Wait(s_pageTime)) // the space keeps the lease: this device has read its last
            {
                throw new TimeoutException("the firmware's configuration device waits in vain for a page of guest memory");
            }
        }
    }

    [Flags]
    private enum FwCfgControl : uint
    {
        Error = 1,
        Read = 2,
        Skip = 4,
        Select = 8,
        Write = 16,
        All = Error | Read | Skip | Select | Write,
    }

    private sealed class PageWait : IPageWaiter
    {
        public ManualResetEventSlim Ready { get; } = new();

        public void PagesReady(PageLease lease) => Ready.Set();
    }
}
