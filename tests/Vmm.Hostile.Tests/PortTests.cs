namespace Vmm.Hostile.Tests;

/// <summary>
/// Guests that abuse a PCI Express root port, with each kind of device in its slot: configuration space of port and device, bus numbers,
/// power, link and button, while the host asks for the device again and again. Nothing throws or hangs, and afterwards the device serves.
/// </summary>
public sealed class PortTests
{
    private const int Steps = 4000;

    /// <summary>All that fits the window of a port: what has memory in a BAR is on bus 0.</summary>
    public static TheoryData<string> Devices
    {
        get
        {
            TheoryData<string> data = [];
            foreach (string name in DeviceRegistry.Names)
            {
                using DeviceBench bench = DeviceRegistry.Create(name);
                if (bench.Device.SharedMemory.Count == 0)
                {
                    data.Add(name);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void Whatever_is_written_to_a_port_the_device_behind_it_heals(string name)
    {
        using DeviceBench bench = DeviceRegistry.Create(name);
        using DeviceGuest guest = new(bench.Device, ram => new PciPort(bench.Device, ram.Memory, behindPort: true));
        PciPort port = (PciPort)guest.Port;
        bench.Heal(guest); // it serves behind a port
        Random random = new(name.Length);
        for (int round = 0; round < 3; round++)
        {
            for (int step = 0; step < Steps; step++)
            {
                Harm(port, random);
            }

            port.EnablePort();
            port.EnableBus();
            port.Status = 0;
            bench.Heal(guest);
        }
    }

    /// <summary>A device whose power goes while it serves is reset, and serves its next driver.</summary>
    [Theory]
    [MemberData(nameof(Devices))]
    public void A_device_that_loses_its_power_amid_requests_serves_the_next_driver(string name)
    {
        using DeviceBench bench = DeviceRegistry.Create(name);
        using DeviceGuest guest = new(bench.Device, ram => new PciPort(bench.Device, ram.Memory, behindPort: true));
        PciPort port = (PciPort)guest.Port;
        for (int round = 0; round < 5; round++)
        {
            bench.Heal(guest);
            for (uint queue = 0; queue < guest.Queues; queue++)
            {
                port.Notify(queue);
            }

            ulong control = PciPort.RootPort + 0x40 + 0x18;
            port.Bus.Write(control, [0, 7]);
            Assert.Equal(uint.MaxValue, port.Config(0));
            port.Bus.Write(control, [0, 1]);
            Assert.Equal(0x1AF4u, port.Config(0, 2));
            port.EnableBus();
            Assert.Equal(0, port.Status);
        }

        bench.Heal(guest);
    }

    private static void Harm(PciPort port, Random random)
    {
        byte[] data = new byte[1 << random.Next(3)];
        random.NextBytes(data);
        int choice = random.Next(16);
        ulong at = choice switch
        {
            < 6 => PciPort.RootPort + (ulong)random.Next(0x100),
            < 9 => PciPort.RootPort + 0x40 + 0x10 + (ulong)random.Next(0x0C), // link and slot
            < 11 => port.FunctionConfig + (ulong)random.Next(0x100),
            11 => PciPort.Ecam + ((ulong)random.Next(256) << 20) + (ulong)random.Next(0x1000), // slot 0 of any bus
            12 => PciPort.Bar + (ulong)random.Next(0x5000),
            _ => 0,
        };
        switch (choice)
        {
            case < 13 when random.Next(3) == 0:
                port.Bus.Read(at, data);
                break;
            case < 13:
                port.Bus.Write(at, data);
                break;
            case 13:
                port.Hotplug!.AskRemoval(1);
                break;
            case 14:
                port.EnablePort(); // so that what follows reaches the device
                break;
            default:
                port.Ports.Write(0xCF8, BitConverter.GetBytes(0x8000_F800u | (uint)(random.Next(64) << 2))); // the port again
                port.Ports.Write(0xCFC, data);
                break;
        }
    }
}
