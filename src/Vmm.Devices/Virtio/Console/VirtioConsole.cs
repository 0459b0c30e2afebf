using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Virtio.Console;

/// <summary>Where a virtio console sends what the guest wrote.</summary>
public interface IConsoleSink
{
    /// <summary>Takes bytes from the guest; keeps no reference to the span. May block: the guest's output then waits.</summary>
    void Write(ReadOnlySpan<byte> bytes);
}

/// <summary>
/// A virtio console with one port (virtio 1.2 section 5.3), which Linux calls <c>hvc0</c>. Input waits in the caller of <see cref="Send"/>
/// while the guest takes none, so nothing typed or piped into it is lost.
/// </summary>
public sealed class VirtioConsole : QueuedDevice
{
    /// <summary>Bytes of input kept for the guest.</summary>
    internal const int InputRoom = 4096;

    private const ulong FeatureSize = 1, FeatureEmergencyWrite = 4; // 5.3.3
    private const int EmergencyOffset = 8, Length = 12;

    private readonly IConsoleSink _sink;
    private readonly byte[] _config = new byte[Length];
    private readonly byte[] _input = new byte[InputRoom];
    private int _inputStart, _inputCount;
    private bool _closed, _inputHeld;

    /// <summary>Makes the device; <paramref name="name"/> names its thread.</summary>
    public VirtioConsole(IConsoleSink sink, string name = "console")
        : base(name)
    {
        _sink = sink;
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(4), 1); // max_nr_ports
    }

    /// <inheritdoc/>
    public override ushort DeviceType => 3;

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds => UnixStream.Needs;

    /// <inheritdoc/>
    public override ulong DeviceFeatures => FeatureSize | FeatureEmergencyWrite;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [64, 64];

    /// <inheritdoc/>
    public override int ConfigLength => Length;

    /// <summary>Tells the guest how big the terminal is, in characters; 0 by 0 is unknown. Any thread.</summary>
    public void Resize(ushort columns, ushort rows)
    {
        lock (Gate)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(_config, columns);
            BinaryPrimitives.WriteUInt16LittleEndian(_config.AsSpan(2), rows);
            Interrupts?.SignalConfigChanged();
        }
    }

    /// <summary>
    /// Gives bytes to the guest, as fast as it takes them; waits meanwhile. Returns how many it took before <see cref="Close"/> or
    /// <see cref="HoldInput"/>.
    /// </summary>
    public int Send(ReadOnlySpan<byte> bytes)
    {
        int done = 0;
        lock (Gate)
        {
            while (done < bytes.Length && !_closed && !_inputHeld)
            {
                int count = Math.Min(bytes.Length - done, InputRoom - _inputCount);
                for (int i = 0; i < count; i++)
                {
                    _input[(_inputStart + _inputCount++) % InputRoom] = bytes[done++];
                }

                if (count > 0)
                {
                    WakeQueues();
                }
                else
                {
                    Monitor.Wait(Gate);
                }
            }
        }

        return done;
    }

    /// <summary>Ends a <see cref="Send"/> that waits, and takes no input until <see cref="ResumeInput"/>. Any thread.</summary>
    public void HoldInput()
    {
        lock (Gate)
        {
            _inputHeld = true;
            Monitor.PulseAll(Gate);
        }
    }

    /// <summary>Takes input again. Any thread.</summary>
    public void ResumeInput()
    {
        lock (Gate)
        {
            _inputHeld = false;
        }
    }

    /// <inheritdoc/>
    public override void Save(StateWriter to)
    {
        lock (Gate)
        {
            if (_inputCount > 0)
            {
                byte[] input = new byte[_inputCount];
                for (int i = 0; i < input.Length; i++)
                {
                    input[i] = _input[(_inputStart + i) % InputRoom];
                }

                to.Write(DeviceStates.Console, new ConsoleStateV1 { Input = input });
            }
        }
    }

    /// <inheritdoc/>
    public override void Restore(StateReader from)
    {
        if (from.TryRead(DeviceStates.Console) is { } state)
        {
            if (state.Input.Length > InputRoom)
            {
                throw new StateException($"{ConsoleStateV1.Kind}: {state.Input.Length} bytes of input, there is room for {InputRoom}");
            }

            lock (Gate)
            {
                state.Input.CopyTo(_input, 0);
                (_inputStart, _inputCount) = (0, state.Input.Length);
            }
        }
    }

    /// <summary>Ends a <see cref="Send"/> that waits, and every later one.</summary>
    public void Close()
    {
        lock (Gate)
        {
            _closed = true;
            Monitor.PulseAll(Gate);
        }
    }

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            lock (Gate)
            {
                _config.AsSpan(offset, Math.Min(data.Length, Length - offset)).CopyTo(data);
            }
        }
    }

    /// <inheritdoc/>
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        // 5.3.4: a character for a guest that has no queues yet, or no more; the low byte counts.
        if (offset == EmergencyOffset && data.Length > 0)
        {
            _sink.Write(data[..1]);
        }
    }

    /// <inheritdoc/>
    private protected override IQueueService? CreateService(VirtioActivation activation) => new ConsoleQueues(this, activation, _sink);

    /// <summary>True when there is input for the guest; queue thread.</summary>
    internal bool HasInput
    {
        get
        {
            lock (Gate)
            {
                return _inputCount > 0;
            }
        }
    }

    /// <summary>Takes input for the guest; queue thread.</summary>
    internal int TakeInput(Span<byte> into)
    {
        lock (Gate)
        {
            int count = Math.Min(into.Length, _inputCount);
            for (int i = 0; i < count; i++)
            {
                into[i] = _input[_inputStart];
                _inputStart = (_inputStart + 1) % InputRoom;
            }

            _inputCount -= count;
            Monitor.PulseAll(Gate);
            return count;
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Close();
        }

        base.Dispose(disposing);
    }
}
