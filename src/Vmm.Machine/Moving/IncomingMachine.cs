using System.Text.Json;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Description;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Machine.Moving;

/// <summary>
/// A machine that comes from another process: its memory is made and filled, then it is built with what came. Any thread; disposing gives
/// it up, unless it was built.
/// </summary>
public sealed class IncomingMachine : IDisposable
{
    private readonly VmSpec _admitted;
    private readonly MoveReceiver _receiver;
    private readonly Thread _thread;
    private readonly Lock _gate = new();
    private ReceivedMemory? _memory;        // under the gate
    private MachineDocument? _document;     // likewise

    private IncomingMachine(VmSpec admitted, IReadOnlyList<FileDescriptorHandle> channels, IIoThreads threads, bool mayPass)
    {
        _admitted = admitted;
        List<MoveChannel> own = [];
        try
        {
            own.AddRange(channels.Select((channel, i) => new MoveChannel(channel, i)));
            _receiver = new MoveReceiver(own, threads, mayPass);
        }
        catch
        {
            own.ForEach(channel => channel.Dispose());
            throw;
        }

        _thread = new Thread(Run, maxStackSize: 1 << 20) { Name = "incoming", IsBackground = true };
        _thread.Start();
    }

    /// <summary>What threads of channels ask of the kernel: to receive, and to write into memory.</summary>
    public static SyscallNeeds Needs { get; } = MoveChannel.Needs + UnixStream.PassingNeeds + new SyscallNeeds(["pwrite64"], []);

    /// <summary>Everything is there.</summary>
    public bool IsComplete
    {
        get
        {
            lock (_gate)
            {
                return _document is not null;
            }
        }
    }

    /// <summary>It was paused, and is to stay so until somebody lets it go on. Once it is complete.</summary>
    public bool IsPaused => _receiver.IsPaused;

    /// <summary>Why it failed; null: it did not.</summary>
    public string? Problem => IsComplete ? null : _receiver.Problem;

    /// <summary>Bytes that came.</summary>
    public ulong ReceivedBytes => _receiver.Received;

    /// <summary>Begins to receive.</summary>
    /// <param name="admitted">What was admitted here: no more memory is made than it says.</param>
    /// <param name="channels">Connected streams, owned from here on, also when this throws.</param>
    /// <param name="threads">Starts the threads of the channels, and confines them to <see cref="Needs"/>.</param>
    /// <param name="mayPass">The sender is a process of this host and may pass the memory itself, which the VM goes on with: nothing is
    /// written into it before the machine is run.</param>
    /// <exception cref="KernelException">The kernel refused something.</exception>
    public static IncomingMachine Begin(
        VmSpec admitted, IReadOnlyList<FileDescriptorHandle> channels, IIoThreads threads, bool mayPass = false) =>
        new(admitted, channels, threads, mayPass);

    /// <summary>Builds the machine with what came. It goes on where it was when it is run.</summary>
    /// <param name="spec">What was opened for it now.</param>
    /// <param name="resources">Where everything comes from; kernel and initrd are not asked for.</param>
    /// <param name="console">Far side of the consoles.</param>
    /// <param name="prepared">An empty VM to build in, owned by the machine from here on, also when this throws; null makes one.</param>
    /// <exception cref="MoveException">Not everything is there.</exception>
    /// <exception cref="StateException">The state does not fit this host or what is behind its devices.</exception>
    /// <exception cref="UnitsException">Parts of the machine did not take their state.</exception>
    public VirtualMachine Build(VmSpec spec, IMachineResources resources, IConsoleEndpoint console, EmptyVm? prepared)
    {
        MachineDocument document;
        ReceivedMemory memory;
        try
        {
            lock (_gate)
            {
                document = _document ?? throw new MoveException(Problem ?? "the VM is not all there yet");
                SameDisks.Require(document.Description.Spec, spec);
                memory = _memory ?? throw new MoveException("the VM was built already");
                _memory = null;
            }
        }
        catch
        {
            prepared?.Dispose();
            throw;
        }

        VirtualMachine machine = VirtualMachine.CreateWithoutBoot(document.Description, resources, console, prepared, received: memory);
        try
        {
            SavedMachine.GiveState(machine, document.State);
            return machine;
        }
        catch
        {
            machine.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _receiver.Fail("it was given up");
        _thread.Join();
        _receiver.Dispose();
        _memory?.Dispose();
    }

    private void Run()
    {
        try
        {
            MachineDescription offered = Read(_receiver.AwaitOffer());
            ReceivedMemory memory = ReceivedMemory.Make(offered, _admitted, _receiver.TakePassed());
            lock (_gate)
            {
                _memory = memory;
            }

            _receiver.Accept(memory.Parts);
            MachineDocument document = MachineDocument.Read(_receiver.AwaitEnd(), "the VM that comes");
            document.RequireWhole();
            if (!document.Description.Ram.SequenceEqual(offered.Ram) || !document.Description.Hot.SequenceEqual(offered.Hot))
            {
                throw new MoveException("the VM has other memory at the end than it had at the beginning");
            }

            _receiver.Complete();
            lock (_gate)
            {
                _document = document;
            }
        }
#pragma warning disable CA1031 // Whatever it was, the sender is told, and this move ends.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            _receiver.Fail(cause.Message);
        }
    }

    private static MachineDescription Read(byte[] offer)
    {
        try
        {
            using JsonDocument json = JsonDocument.Parse(offer);
            return MachineDescriptionJson.Read(json.RootElement);
        }
        catch (Exception cause) when (cause is JsonException or InvalidDataException)
        {
            throw new MoveException($"the machine's description cannot be read: {cause.Message}", cause);
        }
    }
}
