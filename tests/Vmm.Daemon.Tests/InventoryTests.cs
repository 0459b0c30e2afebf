using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Daemon.Inventory;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

public sealed class InventoryTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("inventory-").FullName;

    private string Database => Path.Combine(_folder, "inventory.db");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void What_was_written_is_there_after_opening_again()
    {
        VmRecord a = new("1", "a", "name: a", "/x", 3, WantedOn: true, null);
        VmRecord b = new("2", "b", "name: b", "", 1, WantedOn: false, new WorkerExit(ExitReason.TripleFault, 1, "at 0x1000"));
        using (VmInventory inventory = VmInventory.Open(Database))
        {
            inventory.Vms.Add(b);
            inventory.Vms.Add(a with { WantedOn = false });
            inventory.Vms.Update(a);
        }

        using VmInventory again = VmInventory.Open(Database);
        Assert.Equal([a, b], again.Vms.All());
        again.Vms.Remove(a);
        Assert.Equal([b], again.Vms.All());
        Assert.Throws<InvalidOperationException>(() => again.Vms.Update(a));
    }

    /// <summary>A run may end while the daemon ends: what was answered is kept, and closing does not break into a change.</summary>
    [Fact]
    public void Closing_waits_for_the_change_that_goes_on()
    {
        for (int round = 0; round < 20; round++)
        {
            VmRecord vm = new(round.ToString(CultureInfo.InvariantCulture), $"vm{round}", "name: a", "/x", 0, WantedOn: true, null);
            VmInventory inventory = VmInventory.Open(Database);
            inventory.Vms.Add(vm);
            long answered = 0;
            using ManualResetEventSlim begun = new();
            Thread writer = new(() =>
            {
                try
                {
                    for (long revision = 1; ; revision++)
                    {
                        inventory.Vms.Update(vm with { Revision = revision });
                        answered = revision;
                        begun.Set();
                    }
                }
                catch (InvalidOperationException)
                {
                    // It is closed.
                }
            });
            writer.Start();
            begun.Wait();
            inventory.Dispose();
            writer.Join();
            using VmInventory again = VmInventory.Open(Database);
            Assert.Equal(answered, again.Vms.All().Single(r => r.Id == vm.Id).Revision);
        }
    }

    [Fact]
    public void A_file_that_is_no_database_or_damaged_or_newer_is_refused_by_name()
    {
        File.WriteAllText(Database, "this is not a database, and long enough to have a header of its own, surely, yes");
        Assert.Contains(Database, Assert.Throws<InventoryException>(() => VmInventory.Open(Database)).Message, StringComparison.Ordinal);
        File.Delete(Database);
        VmInventory.Open(Database).Dispose();
        byte[] file = File.ReadAllBytes(Database);
        file[63] = 9; // user_version, big endian at offset 60
        File.WriteAllBytes(Database, file);
        Assert.Contains("newer", Assert.Throws<InventoryException>(() => VmInventory.Open(Database)).Message, StringComparison.Ordinal);
        file[63] = 1;
        Random random = new(3);
        for (int round = 0; round < 50; round++)
        {
            byte[] torn = (byte[])file.Clone();
            random.NextBytes(torn.AsSpan(100, random.Next(1, torn.Length - 100)));
            File.WriteAllBytes(Database, torn);
            try
            {
                using VmInventory opened = VmInventory.Open(Database);
                _ = opened.Vms.All();
            }
            catch (Exception e) when (e is InventoryException or Microsoft.Data.Sqlite.SqliteException)
            {
                // Refused, as it should be; a crash or a hang would fail the test.
            }
        }
    }
}
