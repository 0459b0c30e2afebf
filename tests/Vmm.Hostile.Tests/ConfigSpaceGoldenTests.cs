using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Testing;

namespace Vmm.Hostile.Tests;

/// <summary>
/// The configuration space of every kind of function, byte for byte: what it reads at first and which bits software can write, compared
/// with
/// <c>Golden/pci-config.txt</c>. One line a register that is not all zeros: offset, value, what is left of zeros and of ones written to it.
/// </summary>
public sealed class ConfigSpaceGoldenTests
{
    private const ulong Ecam = 0xE000_0000;

    private static string Golden => Path.Combine(Tree.Root, "tests", "Vmm.Hostile.Tests", "Golden", "pci-config.txt");

    [Fact]
    public void Every_register_of_every_kind_of_function_is_as_it_always_was()
    {
        StringBuilder text = new();
        using (Machine machine = new(null))
        {
            machine.Describe(text, "host bridge", 0, 0);
            machine.Describe(text, "PCI bridge", 0, 31);
            machine.Describe(text, "PCI Express port", 0, 30);
        }

        foreach (string name in DeviceRegistry.Names)
        {
            using DeviceBench bench = DeviceRegistry.Create(name);
            using Machine machine = new(bench.Device);
            machine.Describe(text, $"{name} on bus 0", 0, 1);
        }

        using (DeviceBench bench = DeviceRegistry.Create("rng"))
        using (Machine machine = new(bench.Device, behindBridge: true))
        {
            machine.Describe(text, "rng behind a bridge", 1, 0);
        }

        using (DeviceBench bench = DeviceRegistry.Create("rng"))
        using (Machine machine = new(bench.Device, behindPort: true))
        {
            machine.Describe(text, "rng behind a port", 2, 0);
        }

        if (Environment.GetEnvironmentVariable("VMM_WRITE_GOLDEN") is not null)
        {
            File.WriteAllText(Golden, text.ToString());
        }

        Assert.Equal(File.ReadAllLines(Golden), text.ToString().TrimEnd('\n').Split('\n'));
    }

    private sealed class Machine : IInterruptMessageFactory, IDisposable
    {
        private readonly GuestRam _ram = new();
        private readonly AddressBus _bus = new("MMIO");
        private readonly PciHostBridge _bridge;

        internal Machine(VirtioDevice? device, bool behindBridge = false, bool behindPort = false)
        {
            _bridge = new PciHostBridge(_bus, (0xDE00_0000u, 32u << 20)) { Lines = [new WiredOr(new NoLine())] };
            _bus.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
            if (device is null || behindPort)
            {
                _bridge.AddRootPort(new PciAddress(0, 30), 0xDD00_0000, 1 << 20);
            }

            if (device is null)
            {
                return;
            }

            if (behindPort)
            {
                _bridge.Add(
                    new VirtioPciFunction("golden", device, _ram.Memory, this, null),
                    new PciAddress(2, 0),
                    new BarAllocator(0xC000_0000, 1 << 28));
                new PciPortHotplug(_bridge, _ => Assert.Fail("nobody asked for it")).Allow(2);
                return;
            }

            while (behindBridge && _bridge.Taken(0) != uint.MaxValue)
            {
                _bridge.Plug(new Filler());
            }

            _bridge.Add(new VirtioPciFunction("golden", device, _ram.Memory, this, null), new BarAllocator(0xC000_0000, 1 << 28));
        }

        public IInterruptMessage Route(object device, int slot, ulong address, uint data) =>
            throw new InvalidOperationException("nothing sets a vector up");

        public void Release(object device) { }

        public void Dispose()
        {
            _bridge.Dispose();
            _ram.Dispose();
        }

        internal void Describe(StringBuilder text, string name, int bus, int slot)
        {
            ulong config = Ecam + ((ulong)bus << 20) + ((ulong)slot << 15);
            uint[] first = new uint[1024];
            for (uint i = 0; i < first.Length; i++)
            {
                first[i] = Read(config + (4 * i));
            }

            text.Append(CultureInfo.InvariantCulture, $"# {name}\n");
            for (uint i = 0; i < first.Length; i++)
            {
                ulong register = config + (4 * i);
                Write(register, 0);
                uint zeros = Read(register);
                Write(register, uint.MaxValue);
                uint ones = Read(register);
                Write(register, first[i]);
                Assert.Equal(first[i], Read(register));
                if ((first[i] | zeros | ones) != 0)
                {
                    text.Append(CultureInfo.InvariantCulture, $"{4 * i:x3} {first[i]:x8} {zeros:x8} {ones:x8}\n");
                }
            }
        }

        private uint Read(ulong at)
        {
            byte[] data = new byte[4];
            _bus.Read(at, data);
            return BinaryPrimitives.ReadUInt32LittleEndian(data);
        }

        private void Write(ulong at, uint value) => _bus.Write(at, BitConverter.GetBytes(value));
    }

    private sealed class NoLine : IInterruptLine
    {
        public void Set(bool level) => Assert.Fail("no device has a cause for an interrupt");
    }

    private sealed class Filler() : PciFunction("filler", 0x1AF4, 0x1111, 0xFF0000, 0);
}
