using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Virtio.Serial;

/// <summary>
/// A virtio console device with several ports (virtio 1.2 section 5.3, VIRTIO_CONSOLE_F_MULTIPORT) of which one is used: a named byte
/// stream between a program of the guest and one of the host, e.g. the guest agent's.
/// </summary>
public sealed class VirtioSerial : QueuedDevice
{
    /// <summary>The port where the agent of QEMU's protocol listens.</summary>
    public const string AgentPort = "org.qemu.guest_agent.0";

    /// <summary>The longest last words of a stream, bytes.</summary>
    public const int LongestFarewell = 256;

    private const int LongestName = 64;
    private const ulong FeatureMultiport = 2; // 5.3.3: bit 1
    private const int Length = 12, PortsOffset = 4; // 5.3.4: struct virtio_console_config, max_nr_ports
    private const uint Ports = 2, NamedPort = 1;

    private readonly SerialControl _control;
    private PortStream? _incoming, _current; // under the gate
    private byte[] _farewell = []; // likewise: of a stream that ended
    private SerialStateV1? _restored; // likewise: counts for the next activation
    private ulong _lastStream;

    /// <summary>Makes the device.</summary>
    /// <param name="portName">Name of its port, at most 64 characters.</param>
    /// <param name="name">Names its thread.</param>
    public VirtioSerial(string portName = AgentPort, string name = "agent")
        : base(name)
    {
        ArgumentException.ThrowIfNullOrEmpty(portName);
        if (portName.Length > LongestName)
        {
            throw new ArgumentException($"a name of {portName.Length} characters, at most {LongestName}", nameof(portName));
        }

        _control = new SerialControl(NamedPort, portName);
    }

    /// <inheritdoc/>
    public override ushort DeviceType => 3;

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds => UnixStream.Needs;

    /// <inheritdoc/>
    public override ulong DeviceFeatures => FeatureMultiport;

    /// <summary>Without several ports there is no named one, and port 0 is a console, which this is not.</summary>
    public override ulong RequiredFeatures => FeatureMultiport;

    /// <summary>Receive and transmit: of port 0, which is never added; of control; of the named port (5.3.2).</summary>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [64, 64, 64, 64, 128, 128];

    /// <inheritdoc/>
    public override int ConfigLength => Length;

    /// <summary>A program of the guest has the port open. Any thread.</summary>
    public bool IsOpen
    {
        get
        {
            lock (Gate)
            {
                return _control.GuestOpen;
            }
        }
    }

    /// <summary>
    /// A new stream to the program of the guest that has the port open; the one that there was ends. Any thread.
    /// </summary>
    /// <param name="farewell">What the guest gets when the stream ends, at most <see cref="LongestFarewell"/> bytes.</param>
    /// <returns>The far end, or null: no program has the port open.</returns>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public FileDescriptorHandle? TryConnect(ReadOnlySpan<byte> farewell)
    {
        if (farewell.Length > LongestFarewell)
        {
            throw new ArgumentException($"last words of {farewell.Length} bytes, at most {LongestFarewell}", nameof(farewell));
        }

        lock (Gate)
        {
            if (!_control.GuestOpen)
            {
                return null;
            }

            (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
            _incoming?.Dispose(); // nobody has read a byte of it: its last words are of no use
            _incoming = new PortStream(own, farewell.ToArray()) { Id = ++_lastStream };
            WakeQueues();
            return theirs;
        }
    }

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data)
    {
        Span<byte> config = stackalloc byte[Length];
        config.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(config[PortsOffset..], Ports);
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            config[offset..Math.Min(Length, offset + data.Length)].CopyTo(data);
        }
    }

    /// <inheritdoc/>
    public override void Save(StateWriter to)
    {
        lock (Gate)
        {
            if (_restored is { } waits)
            {
                to.Write(DeviceStates.Serial, waits); // saved again before the driver went on
                return;
            }

            // A stream does not move with the guest: that it ended is what the guest is told.
            byte[] farewell = [.. _farewell, .. (_current?.Farewell ?? default).Span];
            if (_control.GuestOpen || _control.Owes || farewell.Length > 0)
            {
                to.Write(DeviceStates.Serial, new SerialStateV1
                {
                    GuestOpen = _control.GuestOpen,
                    OwesAdd = _control.OwesAdd,
                    OwesName = _control.OwesName,
                    OwesOpen = _control.OwesOpen,
                    Farewell = farewell,
                });
            }
        }
    }

    /// <inheritdoc/>
    public override void Restore(StateReader from)
    {
        if (from.TryRead(DeviceStates.Serial) is not { } state)
        {
            return;
        }

        if (state.Farewell.Length > 2 * LongestFarewell)
        {
            throw new StateException($"{SerialStateV1.Kind}: {state.Farewell.Length} bytes for the guest, "
                + $"there is room for {2 * LongestFarewell}");
        }

        lock (Gate)
        {
            _restored = state;
        }
    }

    /// <inheritdoc/>
    private protected override IQueueService? CreateService(VirtioActivation activation)
    {
        if (_restored is { } state)
        {
            _restored = null;
            _control.GuestOpen = state.GuestOpen;
            (_control.OwesAdd, _control.OwesName, _control.OwesOpen) = (state.OwesAdd, state.OwesName, state.OwesOpen);
            _farewell = state.Farewell;
        }

        return new SerialQueues(this, activation, _control);
    }

    /// <inheritdoc/>
    protected override void OnReset()
    {
        _control.Reset();
        _farewell = [];
        _incoming?.Dispose();
        _incoming = null;
        _current?.Dispose();
        _current = null;
    }

    /// <summary>Guards <see cref="SerialControl"/>, which the queue thread shares with others.</summary>
    internal object ControlGate => Gate;

    /// <summary>The stream now; one that waited to begin has begun. Queue thread.</summary>
    internal PortStream? Stream()
    {
        lock (Gate)
        {
            if (_incoming is { } next)
            {
                _incoming = null;
                Close();
                _current = next;
            }

            if (!_control.GuestOpen)
            {
                Close();
            }

            return _current;
        }
    }

    /// <summary>The stream is over: its last words are owed to the guest. Queue thread.</summary>
    internal void EndStream()
    {
        lock (Gate)
        {
            Close();
        }
    }

    /// <summary>Moves last words into a buffer of the guest's. Queue thread.</summary>
    internal int TakeFarewell(Span<byte> into)
    {
        lock (Gate)
        {
            int count = Math.Min(into.Length, _farewell.Length);
            _farewell.AsSpan(0, count).CopyTo(into);
            _farewell = _farewell[count..];
            return count;
        }
    }

    /// <summary>Last words wait for a guest that has the port open: they wait for an agent that comes back, too. Queue thread.</summary>
    internal bool OwesFarewell
    {
        get
        {
            lock (Gate)
            {
                return _control.GuestOpen && _farewell.Length > 0;
            }
        }
    }

    // Under the gate. A guest that takes none of them has those of the last stream waiting, and no more.
    private void Close()
    {
        if (_current is { } ended)
        {
            _current = null;
            _farewell = ended.Farewell.Length == 0 ? _farewell : ended.Farewell.ToArray();
            ended.Dispose();
        }
    }
}
