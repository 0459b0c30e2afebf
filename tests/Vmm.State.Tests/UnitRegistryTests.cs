using Vmm.State;

namespace Vmm.State.Tests;

public sealed class UnitRegistryTests
{
    private static readonly TimeSpan Long = TimeSpan.FromSeconds(30);

    private readonly List<string> _log = [];
    private readonly UnitRegistry _units = new();

    [Fact]
    public async Task Quiescing_walks_dependencies_backwards_and_resuming_and_restoring_forwards()
    {
        _units.Register(Part("disk", "bus", "memory"));
        _units.Register(Part("vcpu", "bus", "disk"));
        _units.Register(Part("bus", "memory"));
        _units.Register(Part("memory"));
        await _units.QuiesceAsync(Quiesce.Drain, Long);
        IReadOnlyList<UnitBlob> blobs = _units.Save();
        _units.Restore(blobs);
        _units.Resume();
        string[] forwards = ["memory", "bus", "disk", "vcpu"];
        Assert.Equal(
            [
                .. forwards.Reverse().Select(n => "quiesce " + n), .. forwards.Select(n => "save " + n),
                .. forwards.Select(n => "restore " + n), .. forwards.Select(n => "resume " + n),
            ],
            _log);
        Assert.All(_units.Describe(), v => Assert.Equal((UnitPhase.Running, "well"), (v.Phase, v.Text)));
    }

    [Fact]
    public void Random_graphs_are_walked_in_the_order_of_their_dependencies()
    {
        for (int seed = 0; seed < 100; seed++)
        {
            Random random = new(seed);
            _log.Clear();
            UnitRegistry units = new();
            string[] Needs(int i) => [.. Enumerable.Range(0, i).Where(_ => random.Next(4) == 0).Select(n => $"u{n}")];
            FakePart[] parts = [.. Enumerable.Range(0, 12).Select(i => Part($"u{i}", Needs(i)))];
            random.Shuffle(parts);
            Array.ForEach(parts, p => units.Register(p, atRest: true));
            units.Resume();
            Assert.Equal(parts.Length, _log.Count);
            Assert.All(parts, p => Assert.All(p.DependsOn, d => Assert.True(_log.IndexOf($"resume {d}") < _log.IndexOf($"resume {p.Id}"))));
        }
    }

    [Fact]
    public async Task A_unit_that_does_not_come_to_rest_lets_all_go_on_as_before()
    {
        _units.Register(Part("memory"));
        _units.Register(new FakePart("disk", _log, "memory") { OnQuiesce = _ => throw new IOException("the disk hangs") });
        _units.Register(new FakePart("net", _log, "memory") { OnQuiesce = _ => throw new IOException("the tap is gone") });
        _units.Register(Part("vcpu", "disk"));
        UnitsException error = await Assert.ThrowsAsync<UnitsException>(() => _units.QuiesceAsync(Quiesce.Drain, Long));
        Assert.Equal("quiesce: disk: the disk hangs; net: the tap is gone", error.Message);
        Assert.Equal(["resume disk", "resume net", "resume vcpu"], _log.Where(l => l.StartsWith("resume", StringComparison.Ordinal)));
        Assert.DoesNotContain("quiesce memory", _log);
        Assert.All(_units.Describe(), v => Assert.Equal(UnitPhase.Running, v.Phase));
    }

    [Fact]
    public async Task One_deadline_ends_every_wait_and_names_who_hangs_and_describing_works_meanwhile()
    {
        using ManualResetEventSlim asked = new(), end = new();
        _units.Register(new FakePart("stuck", _log)
        {
            OnQuiesce = _ =>
            {
                asked.Set();
                end.Wait(Long); // ignores the deadline and blocks its thread
                return Task.CompletedTask;
            },
            OnResume = end.Set,
            OnDescribe = () => "3 requests in flight",
        });
        _units.Register(new FakePart("obeys", _log) { OnQuiesce = deadline => Task.Delay(Timeout.Infinite, deadline.Token) });
        _units.Register(new FakePart("mute", _log) { OnDescribe = () => throw new InvalidOperationException("no") });
        Task operation = _units.QuiesceAsync(Quiesce.Drain, TimeSpan.FromSeconds(1));
        Assert.True(asked.Wait(Long));
        Assert.Equal("quiesce", _units.Operation);
        UnitView[] views = [.. _units.Describe()];
        Assert.Equal((UnitPhase.Quiescing, "3 requests in flight"), (views[0].Phase, views[0].Text));
        Assert.Equal("cannot describe itself: no", views[2].Text);
        Assert.Throws<InvalidOperationException>(() => _units.Resume());
        Assert.Throws<InvalidOperationException>(() => _units.Register(Part("late")));
        UnitsException error = await Assert.ThrowsAsync<UnitsException>(() => operation);
        Assert.Equal(["stuck", "obeys"], error.Errors.Select(e => e.Unit.ToString()));
        Assert.All(error.Errors, e => Assert.Contains("within 1 s", e.Message, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Saving_needs_rest_and_gathers_errors_and_can_be_repeated()
    {
        bool broken = true;
        _units.Register(new FakePart("a", _log) { OnSave = _ => Require(!broken, "a is broken") });
        _units.Register(new FakePart("b", _log) { OnSave = _ => Require(!broken, "b too") });
        Assert.Throws<InvalidOperationException>(() => _units.Save());
        await _units.QuiesceAsync(Quiesce.Hold, Long);
        Assert.Equal("save: a: a is broken; b: b too", Assert.Throws<UnitsException>(() => _units.Save()).Message);
        broken = false;
        Assert.Equal(2, _units.Save().Count);
        Assert.Equal(2, _units.Save().Count);
        _units.Resume();
    }

    [Fact]
    public void A_blob_without_a_unit_is_an_error_and_a_unit_without_a_blob_stays_fresh()
    {
        _units.Register(Part("a"), atRest: true);
        _units.Register(Part("b"), atRest: true);
        StateException error = Assert.Throws<StateException>(() => _units.Restore([Blob("a"), Blob("gone"), Blob("lost")]));
        Assert.EndsWith("gone, lost.", error.Message, StringComparison.Ordinal);
        Assert.Empty(_log);
        _units.Restore([Blob("b")]);
        Assert.Equal(["restore b"], _log);
    }

    [Fact]
    public void Restoring_gathers_errors_leaves_out_what_depends_on_them_and_refuses_records_nobody_took()
    {
        _units.Register(new FakePart("bus", _log) { OnRestore = _ => throw new StateException("bad bus") }, atRest: true);
        _units.Register(Part("disk", "bus"), atRest: true);
        _units.Register(Part("rtc"), atRest: true);
        UnitBlob rtc = new(new PartId("rtc"), [new StateRecord("alarm", 3, "{}"u8.ToArray())]);
        UnitsException error = Assert.Throws<UnitsException>(() => _units.Restore([Blob("disk"), Blob("bus"), rtc]));
        Assert.Equal(
            ["bad bus", "left out, as it depends on bus", "rtc: this machine has no place for its record 'alarm' version 3."],
            error.Errors.Select(e => e.Message).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Circles_strangers_and_double_names_are_errors()
    {
        _units.Register(Part("a", "b"), atRest: true);
        Refused.NotNow("depends on 'b', which is not there", _units.Resume);
        _units.Register(Part("b", "a"), atRest: true);
        Refused.NotNow("a, b depend on each other", _units.Resume);
        Assert.Throws<InvalidOperationException>(() => _units.Register(Part("a")));
        Assert.Throws<InvalidOperationException>(() => _units.Register(Part("about")));
        Assert.Throws<InvalidOperationException>(() => _units.Unregister(new PartId("a")));
    }

    private FakePart Part(string name, params string[] needs) => new(name, _log, needs);

    private static UnitBlob Blob(string name) => new(new PartId(name), []);

    private static void Require(bool condition, string message)
    {
        if (!condition)
        {
            throw new InvalidOperationException(message);
        }
    }
}
