using System.Text.Json;
using Microsoft.Data.Sqlite;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Inventory;

/// <content>Jobs: each as the JSON that it is outside, too.</content>
public sealed partial class VmInventory
{
    private const string JobTable = "CREATE TABLE IF NOT EXISTS job (id TEXT PRIMARY KEY NOT NULL, json TEXT NOT NULL) STRICT;";

    /// <summary>All jobs; one that this version cannot read is left out.</summary>
    internal IReadOnlyList<JobInfo> Jobs()
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("SELECT json FROM job;");
            using SqliteDataReader rows = command.ExecuteReader();
            List<JobInfo> jobs = [];
            while (rows.Read())
            {
                try
                {
                    if (JsonSerializer.Deserialize(rows.GetString(0), RestJson.Default.JobInfo) is { Id: not null, Kind: not null, Target: not null } job)
                    {
                        jobs.Add(job);
                    }
                }
                catch (JsonException)
                {
                    // Of another version; a job that is over is no reason to stop.
                }
            }

            return jobs;
        }
    }

    /// <summary>Writes a job, new or not.</summary>
    internal void SaveJob(JobInfo job) => ChangeJob("INSERT INTO job (id, json) VALUES ($id, $json) ON CONFLICT (id) DO UPDATE SET json=excluded.json;", job.Id, JsonSerializer.Serialize(job, RestJson.Default.JobInfo));

    /// <summary>Forgets a job.</summary>
    internal void RemoveJob(string id) => ChangeJob("DELETE FROM job WHERE id=$id;", id, "");

    private void ChangeJob(string sql, string id, string json)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command(sql);
            command.Parameters.AddWithValue("$id", id);
            command.Parameters.AddWithValue("$json", json);
            command.ExecuteNonQuery();
        }
    }
}
