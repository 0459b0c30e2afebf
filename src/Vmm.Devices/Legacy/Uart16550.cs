using Vmm.State;

namespace Vmm.Devices.Legacy;

/// <summary>
/// The 16550A UART as a pure state machine (National Semiconductor PC16550D data sheet): registers in, bytes and an interrupt level out. No
/// clock: a byte is sent the moment it is written, so the transmitter is always empty.
/// </summary>
public sealed class Uart16550
{
    /// <summary>Depth of the receive FIFO in bytes.</summary>
    public const int FifoDepth = 16;

    private const byte IerReceive = 1, IerTransmit = 2, IerLineStatus = 4, IerModemStatus = 8;
    private const byte LcrDivisorLatch = 0x80;
    private const byte McrLoop = 0x10;
    private const byte LsrDataReady = 1, LsrOverrun = 2, LsrTransmitEmpty = 0x60;

    private readonly byte[] _fifo = new byte[FifoDepth];
    private int _fifoStart;
    private int _fifoCount;
    private byte _interruptEnable;
    private byte _lineControl;
    private byte _modemControl;
    private byte _scratch;
    private byte _fifoControl;
    private byte _modemDelta;
    private ushort _divisor = 12;
    private bool _overrun;
    private bool _transmitPending;

    /// <summary>The level of the interrupt pin.</summary>
    public bool InterruptPending => Cause() != 1;

    /// <summary>Bytes from the line that the receive FIFO has room for; none in loopback, where the line is cut off.</summary>
    public int ReceiveRoom => (_modemControl & McrLoop) != 0 ? 0 : FifoRoom;

    private int FifoRoom => ((_fifoControl & 1) != 0 ? FifoDepth : 1) - _fifoCount;

    /// <summary>A byte arrives on the line; dropped with an overrun error when there is no room.</summary>
    public void Receive(byte value)
    {
        if ((_modemControl & McrLoop) == 0)
        {
            Store(value);
        }
    }

    private void Store(byte value)
    {
        if (FifoRoom <= 0)
        {
            _overrun = true;
            return;
        }

        _fifo[(_fifoStart + _fifoCount++) % FifoDepth] = value;
    }

    /// <summary>Register read; registers are numbered 0 to 7.</summary>
    public byte Read(int register)
    {
        bool latch = (_lineControl & LcrDivisorLatch) != 0;
        switch (register & 7)
        {
            case 0:
                return latch ? (byte)_divisor : TakeReceived();
            case 1:
                return latch ? (byte)(_divisor >> 8) : _interruptEnable;
            case 2:
                byte cause = Cause();
                if (cause == 2)
                {
                    _transmitPending = false; // reading IIR acknowledges the transmitter interrupt
                }

                return (byte)(cause | ((_fifoControl & 1) != 0 ? 0xC0 : 0));
            case 3:
                return _lineControl;
            case 4:
                return _modemControl;
            case 5:
                byte status = (byte)(LsrTransmitEmpty | (_fifoCount > 0 ? LsrDataReady : 0) | (_overrun ? LsrOverrun : 0));
                _overrun = false;
                return status;
            case 6:
                byte modem = ModemStatus();
                _modemDelta = 0;
                return modem;
            default:
                return _scratch;
        }
    }

    /// <summary>Register write. True when <paramref name="sent"/> went out on the line.</summary>
    public bool Write(int register, byte value, out byte sent)
    {
        sent = value;
        bool latch = (_lineControl & LcrDivisorLatch) != 0;
        switch (register & 7)
        {
            case 0 when latch:
                _divisor = (ushort)((_divisor & 0xFF00) | value);
                break;
            case 0:
                _transmitPending = true;
                if ((_modemControl & McrLoop) == 0)
                {
                    return true;
                }

                Store(value);
                break;
            case 1 when latch:
                _divisor = (ushort)((_divisor & 0xFF) | (value << 8));
                break;
            case 1:
                // Enabling the transmitter interrupt while it is empty raises it at once.
                _transmitPending |= (value & ~_interruptEnable & IerTransmit) != 0;
                _interruptEnable = (byte)(value & 0x0F);
                break;
            case 2:
                if ((value & 2) != 0 || ((value ^ _fifoControl) & 1) != 0)
                {
                    _fifoCount = 0;
                }

                _fifoControl = (byte)(value & 0xC9);
                break;
            case 3:
                _lineControl = value;
                break;
            case 4:
                byte before = ModemStatus();
                _modemControl = (byte)(value & 0x1F);
                _modemDelta |= (byte)(((before ^ ModemStatus()) >> 4) & 0x0F);
                break;
            case 7:
                _scratch = value;
                break;
            default:
                break;
        }

        return false;
    }

    /// <summary>The state for saving.</summary>
    public UartStateV1 Capture() => new()
    {
        InterruptEnable = _interruptEnable,
        LineControl = _lineControl,
        ModemControl = _modemControl,
        Scratch = _scratch,
        FifoControl = _fifoControl,
        ModemDelta = _modemDelta,
        Divisor = _divisor,
        Overrun = _overrun,
        TransmitPending = _transmitPending,
        ReceiveFifo = [.. Enumerable.Range(0, _fifoCount).Select(i => _fifo[(_fifoStart + i) % FifoDepth])],
    };

    /// <summary>Takes a saved state.</summary>
    /// <exception cref="StateException">More received bytes than the FIFO holds.</exception>
    public void Restore(UartStateV1 state)
    {
        if (state.ReceiveFifo is null || state.ReceiveFifo.Length > FifoDepth)
        {
            throw new StateException(
                $"{UartStateV1.Kind}: {state.ReceiveFifo?.Length.ToString() ?? "no"} received bytes, the FIFO holds {FifoDepth}");
        }

        _interruptEnable = (byte)(state.InterruptEnable & 0x0F);
        _lineControl = state.LineControl;
        _modemControl = (byte)(state.ModemControl & 0x1F);
        _scratch = state.Scratch;
        _fifoControl = (byte)(state.FifoControl & 0xC9);
        _modemDelta = (byte)(state.ModemDelta & 0x0F);
        _divisor = state.Divisor;
        _overrun = state.Overrun;
        _transmitPending = state.TransmitPending;
        _fifoStart = 0;
        _fifoCount = state.ReceiveFifo.Length;
        state.ReceiveFifo.CopyTo(_fifo, 0);
    }

    /// <summary>IIR without the FIFO bits: 1 means none; else the cause of highest priority (data sheet, table III).</summary>
    private byte Cause() =>
        (_interruptEnable & IerLineStatus) != 0 && _overrun ? (byte)6
        : (_interruptEnable & IerReceive) != 0 && _fifoCount >= TriggerLevel ? (byte)4
        : (_interruptEnable & IerReceive) != 0 && _fifoCount > 0 ? (byte)12 // character time-out: without a clock it is always over
        : (_interruptEnable & IerTransmit) != 0 && _transmitPending ? (byte)2
        : (_interruptEnable & IerModemStatus) != 0 && _modemDelta != 0 ? (byte)0
        : (byte)1;

    private int TriggerLevel => (_fifoControl & 1) == 0 ? 1 : (_fifoControl >> 6) switch { 0 => 1, 1 => 4, 2 => 8, _ => 14 };

    /// <summary>CTS, DSR and DCD on; in loopback the modem outputs feed the inputs.</summary>
    private byte ModemStatus()
    {
        if ((_modemControl & McrLoop) == 0)
        {
            return (byte)(0xB0 | _modemDelta);
        }

        int inputs = ((_modemControl & 1) << 5) | ((_modemControl & 2) << 3) | ((_modemControl & 4) << 4) | ((_modemControl & 8) << 4);
        return (byte)(inputs | _modemDelta);
    }

    private byte TakeReceived()
    {
        if (_fifoCount == 0)
        {
            return 0;
        }

        byte value = _fifo[_fifoStart];
        _fifoStart = (_fifoStart + 1) % FifoDepth;
        _fifoCount--;
        return value;
    }
}

/// <summary>Saved state of <see cref="Uart16550"/>, version 1; its shape never changes.</summary>
public sealed record UartStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "uart-16550";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>IER.</summary>
    public required byte InterruptEnable { get; init; }

    /// <summary>LCR.</summary>
    public required byte LineControl { get; init; }

    /// <summary>MCR.</summary>
    public required byte ModemControl { get; init; }

    /// <summary>SCR.</summary>
    public required byte Scratch { get; init; }

    /// <summary>FCR.</summary>
    public required byte FifoControl { get; init; }

    /// <summary>Low four bits of MSR.</summary>
    public required byte ModemDelta { get; init; }

    /// <summary>Baud rate divisor.</summary>
    public required ushort Divisor { get; init; }

    /// <summary>An overrun was not read yet.</summary>
    public required bool Overrun { get; init; }

    /// <summary>The transmitter interrupt is raised.</summary>
    public required bool TransmitPending { get; init; }

    /// <summary>Received bytes, oldest first.</summary>
    public required byte[] ReceiveFifo { get; init; }
}
