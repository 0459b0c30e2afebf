using Vmm.Devices.Bus;
using Vmm.State;

namespace Vmm.Devices.Legacy;

/// <summary>
/// The keyboard controller at ports 0x60 and 0x64, with a keyboard of one key at it and no mouse. Command 0xFE pulses the reset line. The
/// key is Wake: the interrupt of a keyboard is what wakes a Linux guest from suspend-to-idle, where no other interrupt of a
/// hardware-reduced ACPI machine is heard. Keys are told in scan code set 2; translation to set 1 is not there, and its bit stays clear.
/// The ports between the two belong to others.
/// </summary>
public sealed class I8042
{
    /// <summary>Its data port.</summary>
    public const ulong DataPort = 0x60;

    /// <summary>Its status and command port.</summary>
    public const ulong CommandPort = 0x64;

    // Configuration byte.
    private const byte InterruptOn = 0x01, SystemFlag = 0x04, KeyboardOff = 0x10, MouseOff = 0x20,
        Kept = InterruptOn | SystemFlag | KeyboardOff | MouseOff;

    // Status byte.
    private const byte OutputFull = 0x01, LastWasCommand = 0x08, Unlocked = 0x10;

    private readonly Lock _gate = new();
    private readonly Action _reset;
    private readonly IInterruptLine? _interrupt;
    private readonly Ps2Keyboard _keyboard = new();
    private byte _configuration = SystemFlag | MouseOff;
    private byte _answer, _last;
    private bool _hasAnswer, _lastWasCommand;
    private byte _expects; // the command whose byte comes next at the data port

    /// <param name="reset">Called on the vCPU thread that asks for it.</param>
    /// <param name="interrupt">Interrupt 1, an edge for each byte; null: nobody listens.</param>
    public I8042(Action reset, IInterruptLine? interrupt = null)
    {
        _reset = reset;
        _interrupt = interrupt;
        Data = new Port(this, isCommand: false);
        Command = new Port(this, isCommand: true);
    }

    /// <summary>What is at <see cref="DataPort"/>.</summary>
    public IBusDevice Data { get; }

    /// <summary>What is at <see cref="CommandPort"/>.</summary>
    public IBusDevice Command { get; }

    /// <summary>Presses and releases the Wake key. A guest that does not listen to its keyboard does not hear of it. Any thread.</summary>
    public void PressWakeKey()
    {
        lock (_gate)
        {
            bool empty = !Ready;
            _keyboard.PressWakeKey();
            if (empty)
            {
                RaiseIfReady();
            }
        }
    }

    /// <summary>The state for saving.</summary>
    public KeyboardControllerStateV1 Capture()
    {
        lock (_gate)
        {
            return new KeyboardControllerStateV1
            {
                Configuration = _configuration,
                Answer = _hasAnswer ? _answer : null,
                Last = _last,
                LastWasCommand = _lastWasCommand,
                Expects = _expects,
                KeyboardBytes = _keyboard.Bytes,
                KeyboardScans = _keyboard.Scans,
                KeyboardExpects = _keyboard.Expects,
            };
        }
    }

    /// <summary>
    /// Takes a saved state. The interrupt of a byte that waits was raised before; it is in the state of the interrupt controller.
    /// </summary>
    /// <exception cref="StateException">More bytes than a keyboard keeps.</exception>
    public void Restore(KeyboardControllerStateV1 state)
    {
        lock (_gate)
        {
            _keyboard.Restore(state.KeyboardBytes, state.KeyboardScans, state.KeyboardExpects);
            _configuration = (byte)(state.Configuration & Kept);
            (_answer, _hasAnswer) = (state.Answer ?? 0, state.Answer is not null);
            _last = state.Last;
            _lastWasCommand = state.LastWasCommand;
            _expects = state.Expects;
        }
    }

    /// <summary>A byte lies in the output buffer.</summary>
    private bool Ready => _hasAnswer || (_keyboard.HasByte && (_configuration & KeyboardOff) == 0);

    private void RaiseIfReady()
    {
        if (Ready && (_configuration & InterruptOn) != 0 && _interrupt is { } line)
        {
            line.Set(true);
            line.Set(false);
        }
    }

    private byte ReadStatus()
    {
        lock (_gate)
        {
            return (byte)((Ready ? OutputFull : 0) | (_configuration & SystemFlag) | (_lastWasCommand ? LastWasCommand : 0) | Unlocked);
        }
    }

    private byte ReadData()
    {
        lock (_gate)
        {
            if (_hasAnswer)
            {
                (_last, _hasAnswer) = (_answer, false);
            }
            else if (Ready)
            {
                _last = _keyboard.TakeByte();
            }

            RaiseIfReady(); // the next byte
            return _last;
        }
    }

    private void WriteData(byte value)
    {
        lock (_gate)
        {
            (byte command, _expects) = (_expects, 0);
            _lastWasCommand = false;
            switch (command)
            {
                case 0x60:
                    _configuration = (byte)(value & Kept);
                    break;
                case 0:
                    _configuration &= unchecked((byte)~KeyboardOff); // who talks to the keyboard listens to it
                    _keyboard.Write(value);
                    break;
                default:
                    return; // for a port or a mouse that is not there
            }

            RaiseIfReady();
        }
    }

    private void WriteCommand(byte command)
    {
        if (command == 0xFE)
        {
            _reset();
            return;
        }

        lock (_gate)
        {
            _lastWasCommand = true;
            _expects = 0;
            switch (command)
            {
                case 0x20:
                    Answer(_configuration);
                    break;
                case 0x60 or 0xD1 or 0xD3 or 0xD4:
                    _expects = command;
                    break;
                case 0xA7:
                    _configuration |= MouseOff;
                    break;
                case 0xA9: // no mouse: its clock line is stuck low
                    Answer(1);
                    break;
                case 0xAA: // self-test
                    Answer(0x55);
                    break;
                case 0xAB: // keyboard interface test
                    Answer(0);
                    break;
                case 0xAD:
                    _configuration |= KeyboardOff;
                    break;
                case 0xAE:
                    _configuration &= unchecked((byte)~KeyboardOff);
                    RaiseIfReady();
                    break;
                default:
                    break;
            }
        }
    }

    private void Answer(byte value)
    {
        (_answer, _hasAnswer) = (value, true);
        RaiseIfReady();
    }

    private sealed class Port(I8042 controller, bool isCommand) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data)
        {
            data.Clear();
            data[0] = isCommand ? controller.ReadStatus() : controller.ReadData();
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            if (isCommand)
            {
                controller.WriteCommand(data[0]);
            }
            else
            {
                controller.WriteData(data[0]);
            }
        }
    }
}
