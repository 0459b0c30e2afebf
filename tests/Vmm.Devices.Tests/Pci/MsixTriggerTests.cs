using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Interop;

namespace Vmm.Devices.Tests.Pci;

/// <summary>Vectors whose eventfd somebody else writes to.</summary>
public sealed class MsixTriggerTests : IDisposable
{
    private const ushort On = 0x8000, AllMasked = 0x4000;

    private readonly Routes _routes = new();
    private readonly List<int> _routed = [];
    private readonly MsixTable _table;

    public MsixTriggerTests() => _table = new MsixTable(3, _routes, this) { Routed = _routed.Add };

    public void Dispose() => _routes.Dispose();

    [Fact]
    public void A_vector_has_a_trigger_once_software_has_set_it_up()
    {
        _table.SetControl(On);
        Assert.Null(_table.HandTrigger(1));
        SetUp(1);
        Assert.Same(_routes.Of(1).Trigger, _table.HandTrigger(1));
        SetUp(1);
        Assert.Equal([1], _routed);
        Assert.Null(_table.HandTrigger(3));
        Assert.Null(_table.HandTrigger(0xFFFF));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_is_written_while_the_vector_is_masked_stays_shows_as_pending_and_is_sent_once(bool wholeFunction)
    {
        _table.SetControl(On);
        SetUp(1);
        EventFd trigger = _table.HandTrigger(1)!;
        Assert.False(_routes.Of(1).Masked);
        Mask(true);
        Assert.True(_routes.Of(1).Masked);
        Assert.Equal(0, Pending());
        trigger.Signal();
        trigger.Signal();
        Assert.Equal(2, Pending());
        Assert.Equal(2, Pending());
        Assert.Equal(0, _routes.Of(1).Sent);
        Mask(false);
        Assert.False(_routes.Of(1).Masked);
        Assert.Equal(1, _routes.Of(1).Sent);
        Assert.Equal(0, Pending());

        void Mask(bool on)
        {
            if (wholeFunction)
            {
                _table.SetControl(on ? (ushort)(On | AllMasked) : On);
            }
            else
            {
                Write(1, 12, on ? 1u : 0);
            }
        }
    }

    [Fact]
    public void What_is_written_just_before_the_mask_goes_is_sent_too()
    {
        _table.SetControl(On);
        SetUp(0);
        EventFd trigger = _table.HandTrigger(0)!;
        Write(0, 12, 1);
        trigger.Signal();
        Write(0, 12, 0); // nobody has read the pending bits
        Assert.Equal(1, _routes.Of(0).Sent);
    }

    [Fact]
    public void A_mask_costs_nothing_where_nobody_else_has_the_trigger()
    {
        _table.SetControl(On);
        SetUp(2);
        Write(2, 12, 1);
        Write(2, 12, 0);
        Assert.Equal(0, _routes.Of(2).Changes);
        _table.HandTrigger(2);
        Write(2, 12, 1);
        _table.TakeTriggersBack();
        Assert.False(_routes.Of(2).Masked);
        Assert.Equal(2, _routes.Of(2).Changes);
        Write(2, 12, 0);
        Assert.Equal((2, 0), (_routes.Of(2).Changes, _routes.Of(2).Sent));
    }

    [Fact]
    public void Without_msi_x_a_written_trigger_is_a_cause_for_the_isr()
    {
        _table.SetControl(On);
        SetUp(0);
        EventFd trigger = _table.HandTrigger(0)!;
        _table.SetControl(0);
        Assert.False(_table.TakeHeld());
        trigger.Signal();
        Assert.True(_table.TakeHeld());
        Assert.False(_table.TakeHeld());
    }

    private void SetUp(int vector)
    {
        Write(vector, 0, 0xFEE0_0000);
        Write(vector, 8, 0x40u + (uint)vector);
        Write(vector, 12, 0);
    }

    private void Write(int vector, uint field, uint value)
    {
        byte[] data = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        _table.WriteTable(((uint)vector * 16) + field, data);
    }

    private int Pending()
    {
        byte[] bits = new byte[8];
        _table.ReadPending(0, bits);
        return bits[0];
    }

    private sealed class Routes : IInterruptMessageFactory, IDisposable
    {
        private readonly Dictionary<int, Route> _routes = [];

        internal Route Of(int slot) => _routes[slot];

        IInterruptMessage IInterruptMessageFactory.Route(object device, int slot, ulong address, uint data)
        {
            if (!_routes.TryGetValue(slot, out Route? route))
            {
                _routes.Add(slot, route = new Route());
            }

            return route;
        }

        public void Release(object device) => Dispose();

        public void Dispose()
        {
            foreach (Route route in _routes.Values)
            {
                route.Trigger.Dispose();
            }

            _routes.Clear();
        }
    }

    private sealed class Route : IInterruptRoute
    {
        public EventFd Trigger { get; } = new();

        public int Sent { get; private set; }

        public bool Masked { get; private set; }

        public int Changes { get; private set; }

        public void Signal() => Sent++;

        public void Retarget(ulong address, uint data) => throw new NotSupportedException("the table routes again instead");

        public void Mask()
        {
            Masked = true;
            Changes++;
        }

        public bool Unmask()
        {
            Masked = false;
            Changes++;
            return Trigger.TryTake(out _);
        }
    }
}
