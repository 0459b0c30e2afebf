using Vmm.Devices.Bus;

namespace Vmm.Devices.Firmware;

/// <summary>What is behind a <see cref="CfiFlash"/>: its bytes, and whether the guest reads them without an exit.</summary>
public interface IFlashMemory
{
    /// <summary>The bytes; changing them changes what is kept. Their number never changes.</summary>
    Span<byte> Bytes { get; }

    /// <summary>The guest reads the bytes directly (true), or every read comes to the device. Writes always come to it.</summary>
    /// <remarks>Called under the lock of the device, only when it changes.</remarks>
    void Show(bool array);
}

/// <summary>
/// A flash memory with Intel's command set (CFI vendor command set 1; Intel 28F640J3 datasheet, 4), as QEMU's cfi01 flash drives it: read
/// array, read status, read identifier, program a byte, erase a block of 4 KiB, clear status. As there, programming stores what is written,
/// also where a bit is zero already, and a cleared status is all zero. Anything else that is written leads back to the array.
/// </summary>
/// <param name="memory">Its bytes, whole blocks.</param>
public sealed class CfiFlash(IFlashMemory memory) : IBusDevice
{
    /// <summary>Bytes of a block.</summary>
    public const int BlockBytes = 4096;

    private const byte Ready = 0x80, EraseError = 0x20, Manufacturer = 0x89, Device = 0x18;

    private readonly Lock _gate = new();
    private FlashMode _mode = FlashMode.Array;
    private byte _status = Ready;

    /// <summary>Its bytes, for saving; no vCPU runs.</summary>
    public ReadOnlySpan<byte> Bytes => memory.Bytes;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Clear();
        lock (_gate)
        {
            switch (_mode)
            {
                case FlashMode.Array:
                    ReadOnlySpan<byte> bytes = memory.Bytes[(int)Math.Min(offset, (ulong)memory.Bytes.Length)..];
                    bytes[..Math.Min(bytes.Length, data.Length)].CopyTo(data);
                    break;
                case FlashMode.Identifier:
                    data[0] = (offset & 0xFF) switch { 0 => Manufacturer, 1 => Device, _ => 0 };
                    break;
                default:
                    data[0] = _status;
                    break;
            }
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            switch (_mode)
            {
                case FlashMode.Program:
                    Program(offset, data);
                    break;
                case FlashMode.Erase:
                    Erase(offset, data[0]);
                    break;
                default:
                    Command(data[0]);
                    break;
            }
        }
    }

    /// <summary>The state for saving, but its bytes. No vCPU runs.</summary>
    public CfiFlashStateV1 Capture()
    {
        lock (_gate)
        {
            return new CfiFlashStateV1 { Mode = (byte)_mode, Status = _status, Blocks = FlashBlocks.Capture(memory.Bytes) };
        }
    }

    /// <summary>Takes a saved state, and its bytes. No vCPU runs.</summary>
    /// <exception cref="State.StateException">It is of another flash.</exception>
    public void Restore(CfiFlashStateV1 state)
    {
        lock (_gate)
        {
            if (!Enum.IsDefined((FlashMode)state.Mode))
            {
                throw new State.StateException($"{CfiFlashStateV1.Kind}: there is no mode {state.Mode}");
            }

            FlashBlocks.Restore(state.Blocks, memory.Bytes);
            _status = state.Status;
            Enter((FlashMode)state.Mode);
        }
    }

    private void Command(byte command)
    {
        switch (command)
        {
            case 0x10 or 0x40:
                Enter(FlashMode.Program);
                break;
            case 0x20:
                Enter(FlashMode.Erase);
                break;
            case 0x50:
                _status = 0;
                Enter(FlashMode.Array);
                break;
            case 0x70:
                Enter(FlashMode.Status);
                break;
            case 0x90:
                Enter(FlashMode.Identifier);
                break;
            default:
                Enter(FlashMode.Array);
                break;
        }
    }

    private void Program(ulong offset, ReadOnlySpan<byte> data)
    {
        Span<byte> bytes = memory.Bytes[(int)Math.Min(offset, (ulong)memory.Bytes.Length)..];
        data[..Math.Min(bytes.Length, data.Length)].CopyTo(bytes);
        _status |= Ready;
        Enter(FlashMode.Status);
    }

    private void Erase(ulong offset, byte confirm)
    {
        if (confirm == 0xD0)
        {
            int block = (int)Math.Min(offset, (ulong)memory.Bytes.Length - 1) / BlockBytes * BlockBytes;
            memory.Bytes.Slice(block, BlockBytes).Fill(0xFF);
            _status |= Ready;
            Enter(FlashMode.Status);
        }
        else if (confirm == 0xFF)
        {
            Enter(FlashMode.Array);
        }
        else
        {
            _status |= Ready | EraseError;
            Enter(FlashMode.Status);
        }
    }

    private void Enter(FlashMode mode)
    {
        bool was = _mode == FlashMode.Array, isArray = mode == FlashMode.Array;
        _mode = mode;
        if (was != isArray)
        {
            memory.Show(isArray);
        }
    }

    private enum FlashMode : byte
    {
        Array = 0,
        Status = 1,
        Identifier = 2,
        Program = 3,
        Erase = 4,
    }
}
