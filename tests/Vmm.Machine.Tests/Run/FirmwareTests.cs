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

namespace Vmm.Machine.Tests.Run;

/// <summary>
/// A machine that starts by firmware, with one of a few instructions: it starts at the reset vector, knows the chipset, asks the
/// configuration device, programs the flash of its variables, and switches the machine off as edk2 does.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class FirmwareTests : IDisposable
{
    private const int CodeBytes = 0x1000, VariableBytes = 0x2000;

    private readonly string _variables = Path.Combine(Path.GetTempPath(), $"vmm-variables-{Guid.NewGuid():N}.fd");

    public FirmwareTests()
    {
        byte[] erased = new byte[VariableBytes];
        erased.AsSpan().Fill(0xFF);
        erased[0] = (byte)'-';
        File.WriteAllBytes(_variables, erased);
    }

    public void Dispose() => File.Delete(_variables);

    [KvmFact]
    public void Firmware_starts_at_the_reset_vector_and_keeps_what_it_programs()
    {
        Assert.Equal((ExitReason.PowerOff, "QEMU-"), Run('A'));
        Assert.Equal((ExitReason.PowerOff, "QEMUA"), Run('B'));
        byte[] kept = File.ReadAllBytes(_variables);
        Assert.Equal((VariableBytes, (byte)'B', (byte)0xFF), (kept.Length, kept[0], kept[1]));
    }

    private (ExitReason Reason, string Said) Run(char value)
    {
        VmSpec spec = new()
        {
            Memory = ByteSize.MiB(128),
            DebugExit = true,
            Boot = new BootSpec { Firmware = FirmwareKind.Uefi, Variables = _variables },
        };
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(spec, new FirmwareResources(Code((byte)value)), terminal, prepared: null);
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        RunResult result = machine.Run(deadline.Token);
        return (result.Reason, terminal.Said);
    }

    /// <summary>All of it in real mode, whose code segment begins at FFFF0000; the last 16 bytes jump to the first.</summary>
    private static byte[] Code(byte value)
    {
        byte[] image = new byte[CodeBytes];
        byte[] code =
        [
            0xFA,                                           // cli
            0xBA, 0x10, 0x05, 0x31, 0xC0, 0xEF,             // item 0 of port 0x510
            0xB9, 0x04, 0x00,                               // four times
            0xBA, 0x11, 0x05, 0xEC, 0xBA, 0xF8, 0x03, 0xEE, // a byte of it to the serial port
            0xE2, 0xF6,
            .. Read, 0xBA, 0xF8, 0x03, 0xEE,                // what is kept to the serial port
            .. Write, 0x10, .. Write, value,                // program
            .. Write, 0xFF,                                 // back to the array
            .. Read, 0x3C, value, 0x75, 0x2F,               // what it reads now
            .. Write, 0x55, .. Read, 0x3C, value, 0x75, 0x20, // which a plain write does not change
            0x66, 0xB8, 0x00, 0x00, 0x00, 0x80, 0xBA, 0xF8, 0x0C, 0x66, 0xEF, // 00:00.0
            0xBA, 0xFC, 0x0C, 0x66, 0xED, 0x66, 0x3D, 0x86, 0x80, 0xC0, 0x29, 0x75, 0x08,
            0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF, 0xF4, // off
            0xB0, 0x01, 0xE6, 0xF4, 0xF4,                   // something was wrong
        ];
        code.CopyTo(image, 0);
        byte[] jump = [0xE9, 0x0D, 0xF0]; // from FFF3 to F000
        jump.CopyTo(image, CodeBytes - 16);
        return image;
    }

    /// <summary>mov al, cs:[D000], the first byte of the variables.</summary>
    private static ReadOnlySpan<byte> Read => [0x2E, 0x8A, 0x06, 0x00, 0xD0];

    /// <summary>mov byte cs:[D000], the byte that follows.</summary>
    private static ReadOnlySpan<byte> Write => [0x2E, 0xC6, 0x06, 0x00, 0xD0];

    private sealed class FirmwareResources(byte[] code) : IMachineResources
    {
        private readonly PathResources _paths = new();

        public KvmSystem OpenKvm() => _paths.OpenKvm();

        public BootFile OpenKernel(BootSpec boot) => throw new NotSupportedException();

        public BootFile OpenInitrd(BootSpec boot) => throw new NotSupportedException();

        public BootFile OpenFirmware(BootSpec boot) => BootFile.FromBytes(code, "a firmware of a test");

        public FileDescriptorHandle? OpenVariables(BootSpec boot) =>
            RawFileBackend.Open(boot.Variables!, new RawFileOptions { Cache = DiskCacheMode.Buffered }).TakeDescriptor();

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
}
