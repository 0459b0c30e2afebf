using System.Text;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.LifeCycle;
using Vmm.Machine.Boot;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage;
using Vmm.Testing;

namespace Vmm.Run.Tests;

/// <summary>
/// A guest that firmware started and that resets goes on in the same process, with the variables of the firmware; firmware of a few
/// instructions counts its starts in them.
/// </summary>
[Collection("environment")]
[Trait("Tier", "kvm")]
public sealed class RebootTests : IDisposable
{
    private const int CodeBytes = 0x1000, VariableBytes = 0x2000;

    private readonly string _template = Path.Combine(Path.GetTempPath(), $"vmm-template-{Guid.NewGuid():N}.fd");
    private readonly List<string> _notes = [];

    public RebootTests()
    {
        byte[] erased = new byte[VariableBytes];
        erased.AsSpan().Fill(0xFF);
        erased[0] = (byte)'A';
        File.WriteAllBytes(_template, erased);
    }

    public void Dispose() => File.Delete(_template);

    [KvmFact]
    public void A_reset_starts_the_firmware_again_with_its_variables()
    {
        (RunResult result, string said) = Run(new RunRequest(Spec(RebootPolicy.Restart)), CancellationToken.None);
        Assert.Equal((ExitReason.PowerOff, "ABC"), (result.Reason, said));
        Assert.Equal(2, _notes.Count(note => note.Contains("vm: the guest rebooted and starts again", StringComparison.Ordinal)));
        Assert.Equal("firmware: hi", _notes.First(note => note.StartsWith("firmware:", StringComparison.Ordinal)));
        Assert.Equal((byte)'A', File.ReadAllBytes(_template)[0]);
    }

    [KvmFact]
    public void A_reset_is_the_end_where_the_spec_says_so()
    {
        (RunResult result, string said) = Run(new RunRequest(Spec(RebootPolicy.Stop)), CancellationToken.None);
        Assert.Equal((ExitReason.Reset, 0, "A"), (result.Reason, result.ExitCode, said));
    }

    [KvmFact]
    public void One_that_is_told_to_stop_between_two_starts_does_not_start_again()
    {
        using CancellationTokenSource stop = new();
        RunRequest request = new(Spec(RebootPolicy.Restart), SaveTo: Path.Combine(Path.GetTempPath(), Guid.NewGuid().ToString("N")));
        (RunResult result, string said) = Run(request, stop.Token, note =>
        {
            if (note.Contains("starts again", StringComparison.Ordinal))
            {
                stop.Cancel();
            }
        });
        Assert.Equal((ExitReason.Stopped, "A"), (result.Reason, said));
        Assert.Contains("nothing was saved", result.Message, StringComparison.Ordinal);
        Assert.False(Path.Exists(request.SaveTo));
    }

    private static VmSpec Spec(RebootPolicy policy) => new()
    {
        Memory = ByteSize.MiB(128),
        OnReboot = policy,
        Boot = new BootSpec { Firmware = FirmwareKind.Uefi },
    };

    private (RunResult Result, string Said) Run(RunRequest request, CancellationToken stop, Action<string>? heard = null)
    {
        using MemoryVariables variables = new();
        Said console = new();
        void Note(string text)
        {
            lock (_notes)
            {
                _notes.Add(text);
            }

            heard?.Invoke(text);
        }

        RunResult result = ForegroundMachine.Run(
            request,
            _ => VirtualMachine.Create(request.Spec, new Resources(_template, variables, Note), console, prepared: null),
            Note,
            stop);
        return (result, console.Text);
    }

    /// <summary>In real mode: says what it finds, makes one more of it, and resets until it finds C.</summary>
    private static byte[] Code()
    {
        byte[] image = new byte[CodeBytes];
        byte[] code =
        [
            0xFA,                                           // cli
            0xBA, 0x02, 0x04,                               // "hi" to port 0x402
            0xB0, 0x68, 0xEE, 0xB0, 0x69, 0xEE, 0xB0, 0x0A, 0xEE,
            0x2E, 0x8A, 0x1E, 0x00, 0xD0,                   // mov bl, cs:[D000], the first byte of the variables
            0x88, 0xD8, 0xBA, 0xF8, 0x03, 0xEE,             // to the serial port
            0x80, 0xFB, 0x43, 0x74, 0x14,                   // C: off
            0xFE, 0xC3,                                     // one more
            0x2E, 0xC6, 0x06, 0x00, 0xD0, 0x10,             // program
            0x2E, 0x88, 0x1E, 0x00, 0xD0,
            0xB0, 0x06, 0xBA, 0xF9, 0x0C, 0xEE, 0xF4,       // reset
            0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF, 0xF4, // off
        ];
        code.CopyTo(image, 0);
        byte[] jump = [0xE9, 0x0D, 0xF0]; // from FFF3 to F000
        jump.CopyTo(image, CodeBytes - 16);
        return image;
    }

    private sealed class Resources(string template, MemoryVariables variables, Action<string> note) : IMachineResources
    {
        public Action<string>? FirmwareSaid => line => note("firmware: " + line);

        public KvmSystem OpenKvm() => KvmSystem.Open();

        public BootFile OpenKernel(BootSpec boot) => throw new NotSupportedException();

        public BootFile OpenInitrd(BootSpec boot) => throw new NotSupportedException();

        public BootFile OpenFirmware(BootSpec boot) => BootFile.FromBytes(Code(), "a firmware of a test");

        public FileDescriptorHandle? OpenVariables(BootSpec boot) => variables.Open(template);

        public BootFile OpenVariableTemplate(BootSpec boot) => throw new NotSupportedException();

        public FileDescriptorHandle OpenUserfault() => throw new NotSupportedException();

        public FileDescriptorHandle OpenSwap(PagingSpec paging) => throw new NotSupportedException();

        public IDiskBackend OpenDisk(int index, DiskSpec disk) => throw new NotSupportedException();

        public FileDescriptorHandle OpenDeviceFile(int index, DeviceFile file) => throw new NotSupportedException();

        public INetBackend OpenNet(int index, NetSpec net) => throw new NotSupportedException();

        public VhostUserLink OpenShare(int index, ShareSpec share) => throw new NotSupportedException();

        public VhostUserLink OpenBackEnd(int index, string id, DeviceSpec device, VhostUserNeeds needs) =>
            throw new NotSupportedException();
    }

    private sealed class Said : IConsoleEndpoint
    {
        private readonly StringBuilder _text = new();

        internal string Text
        {
            get
            {
                lock (_text)
                {
                    return _text.ToString();
                }
            }
        }

        public void Write(ReadOnlySpan<byte> output)
        {
            lock (_text)
            {
                _text.Append(Encoding.ASCII.GetString(output));
            }
        }

        public int Read(Span<byte> input) => 0;

        public void InterruptRead()
        {
            // Nobody reads.
        }

        public void StopReading()
        {
            // Nor does anybody go on.
        }
    }
}
